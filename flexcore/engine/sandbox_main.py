"""The program of a sandbox's child process: evaluates JavaScript, one request after the other, until its input ends.

Started by path under `python -I -S` with (folder of the quickjs extension, CPU seconds, memory bytes, result bytes).
It imports nothing of ours and next to nothing else, has no environment, and gives JavaScript no object of its own:
a fresh context per request, whose only input is JSON text and whose only output is JSON text.

A request is two lengths (4 bytes each), the source, and the names it may read as a JSON object. A reply is a length,
one byte for its kind (ready, value, value with large integers, failure), and the body; a failure's body is four lines:
name, line, column (0 when unknown; of the expression), message.

Budgets: QuickJS interrupts itself at the CPU limit and counts its memory; a timer of the kernel ends this process
where QuickJS does not look, inside a long built-in. A death is the parent's to explain.
"""

import resource
import signal
import sys
from importlib import import_module
from types import ModuleType

READY, VALUE, LARGE, FAILURE = b"R", b"V", b"L", b"F"
NAMES = "input,flow_input,results,previous_result,error,iter,vars,env,execution"

_STACK_BYTES = 512 << 10
_GRACE_SECONDS = 0.25  # of CPU, for QuickJS to stop by itself

# On one line, so that every frame on a later line belongs to the expression. It keeps the built-ins that it needs
# before the expression can replace them, and turns undefined into null at every depth, so that no key of a result
# goes missing.
_PRELUDE = r"""
(function () {
  'use strict';
  const { parse, stringify } = JSON, { isFinite } = Number, { abs, trunc } = Math, text = String;
  const { call } = Function.prototype, tag = call.bind(Object.prototype.toString), join = call.bind([].join);
  const refuse = (message) => { const error = new Error(message); error.name = 'NotJSON'; throw error; };
  const at = (key) => (key === '' ? 'the result is' : `the result has, at '${text(key)}',`);
  let large = false;
  const checked = (key, value) => {
    switch (typeof value) {
      case 'string': case 'boolean': return value;
      case 'undefined': return null;
      case 'number':
        if (!isFinite(value)) refuse(`${at(key)} ${text(value)}, which JSON cannot hold`);
        if (abs(value) > 9007199254740992 && trunc(value) === value) large = true;
        return value;
      case 'object': {
        if (value === null) return value;
        const kind = tag(value);
        if (kind === '[object Object]' || kind === '[object Array]' || kind === '[object Arguments]'
          || kind === '[object String]' || kind === '[object Number]' || kind === '[object Boolean]') return value;
        return refuse(`${at(key)} a ${kind.slice(8, -1)}, which JSON cannot hold; make it a list or a plain object`);
      }
      case 'bigint': return refuse(`${at(key)} a BigInt, which JSON cannot hold; use Number(x) or String(x)`);
      case 'function': return refuse(`${at(key)} a function; was it meant to be called?`);
      default: return refuse(`${at(key)} a symbol, which JSON cannot hold`);
    }
  };
  return (run, given) => {
    const names = parse(given);
    const json = stringify(run(@NAMES@), checked);
    return large ? join([' ', json], '') : json;
  };
})()
""".replace("@NAMES@", ",".join(f"names.{name}" for name in NAMES.split(","))).replace("\n", " ")

# Clocks and chance are closed, so that an execution can be explained afterwards. Only where they are named: building
# this takes as long as a small expression, and answers are kept in the history anyway.
_NO_CLOCKS = r"""
(function () {
  const clock = () => { throw new TypeError('an expression has no current time; use execution.started_at'); };
  const Time = Date, { construct } = Reflect;
  Time.now = clock;
  globalThis.Date = new Proxy(Time, {
    apply: clock, construct: (target, given, made) => (given.length ? construct(target, given, made) : clock()) });
  Time.prototype.constructor = globalThis.Date;
  Math.random = () => { throw new TypeError('an expression has no chance; draw the number in a step'); };
})()
""".replace("\n", " ")


class Evaluator:
    """JavaScript under three budgets: CPU seconds, bytes of memory, bytes of result."""

    def __init__(self, engine: ModuleType, seconds: float, memory_bytes: int, result_bytes: int) -> None:
        self._engine = engine
        self._seconds = seconds
        self._memory_bytes = memory_bytes
        self._result_bytes = result_bytes

    def reply(self, source: str, names: str) -> tuple[bytes, str]:
        """Evaluate; the reply's kind and body."""
        engine = self._engine
        try:
            text = self._evaluate(source, names)
        except (engine.JSException, engine.StackOverflow) as error:
            return FAILURE, self._explained(str(error))
        except (MemoryError, SystemError, TypeError, ValueError) as error:
            return FAILURE, _failure("InternalError", f"JavaScript gave something that cannot be read ({error})")
        if len(text) > self._result_bytes:
            return FAILURE, _failure("RangeError", f"the result is larger than {self._result_bytes} bytes")
        return (LARGE if text.startswith(" ") else VALUE), text

    def _evaluate(self, source: str, names: str) -> str:
        context = self._engine.Context()
        context.set_memory_limit(self._memory_bytes)
        context.set_max_stack_size(_STACK_BYTES)
        context.set_time_limit(self._seconds)
        start = context.eval(_PRELUDE)
        if "Date" in source or "random" in source:
            context.eval(_NO_CLOCKS)
        run = context.eval(f"(function expression({NAMES}) {{ 'use strict'; return (\n{source}\n) }})")
        return str(start(run, names))

    def _explained(self, text: str) -> str:
        head, _, trace = text.partition("\n    at ")
        head = head.rstrip()
        name, _, message = head.partition(": ")
        if name == "InternalError" and message == "interrupted":
            return _failure("Timeout", f"it took more than {self._seconds:g} s of computing time")
        if head in ("InternalError: out of memory", "null"):  # null: not even the error had room
            return _failure("OutOfMemory", f"it needed more than {self._memory_bytes >> 20} MB of memory")
        shown = message if name == "NotJSON" else head.removesuffix("\nundefined")
        return _failure(name if message else "", shown, *_place(trace))


def _place(trace: str) -> tuple[int, int]:
    for frame in trace.split("<input>:")[1:]:
        line, _, column = frame.splitlines()[0].rstrip(")").partition(":")
        if line.isdigit() and column.isdigit() and int(line) > 1:
            return int(line) - 1, int(column)
    return 0, 0


def _failure(name: str, message: str, line: int = 0, column: int = 0) -> str:
    return f"{name}\n{line}\n{column}\n{message}"


def _limit(memory_bytes: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    limits = {resource.RLIMIT_CORE: 0, resource.RLIMIT_FSIZE: 0, resource.RLIMIT_AS: 8 * memory_bytes + (256 << 20)}
    for kind, value in limits.items():
        try:
            resource.setrlimit(kind, (value, value))
        except (OSError, ValueError):  # some platforms refuse some limits; the engine's own remain
            continue


def main() -> None:
    """Serve requests until the parent closes the pipe or dies."""
    folder, seconds, memory_bytes, result_bytes = sys.argv[1:]
    sys.path.append(folder)
    quickjs = import_module("_quickjs")  # found only now; the package `quickjs` around it would start a thread
    _limit(int(memory_bytes))
    evaluator = Evaluator(quickjs, float(seconds), int(memory_bytes), int(result_bytes))
    requests, replies = sys.stdin.buffer, sys.stdout.buffer
    kind, body = READY, b""
    while True:
        replies.write(len(body).to_bytes(4) + kind + body)
        replies.flush()
        head = requests.read(8)
        if len(head) < 8:
            return
        source = requests.read(int.from_bytes(head[:4])).decode()
        names = requests.read(int.from_bytes(head[4:])).decode()
        signal.setitimer(signal.ITIMER_PROF, float(seconds) + _GRACE_SECONDS)
        kind, text = evaluator.reply(source, names)
        signal.setitimer(signal.ITIMER_PROF, 0)
        body = text.encode("utf-8", "replace")


if __name__ == "__main__":
    main()
