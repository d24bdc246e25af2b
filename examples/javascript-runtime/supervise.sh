# Runs one step apart from the server, and puts down how it ended: supervise.sh FOLDER [ARGUMENT…]
folder=$1
shift
echo $$ > "$folder/supervisor"
cd "$folder/work" || exit 1
bash -e -o pipefail "$folder/script" "$@" > "$folder/stdout" 2> "$folder/stderr" < /dev/null &
wait $!
echo $? > "$folder/status.new"
mv "$folder/status.new" "$folder/status"
