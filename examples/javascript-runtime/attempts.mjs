// Attempts as folders: whatever has to be known after a restart of the server is a file in one. A step runs under
// `supervise.sh`, in a session of its own, and goes on without the server. All its processes are found by a variable
// in their environment, also those that went into sessions of their own.

import { createHash, randomBytes } from 'node:crypto';
import { spawn } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

const LOOK_MS = 20;
const READERS_MS = 2000;
const CHUNK = 1 << 18;
const MARK = 'FLEXCORE_ATTEMPT';
const CLASSES = { user: 1, input: 2, lost: 8, timeout: 9, cancelled: 10 };
const SUPERVISE = path.join(import.meta.dirname, 'supervise.sh');

export const failed = (errorClass, message, name = '', hint = '') =>
  ({ finished: { failure: { errorClass: CLASSES[errorClass], message, name, hint } } });

/** The attempts of one installation. */
export class Attempts {
  constructor(folder, installation) {
    this.folder = folder;
    this.installation = installation;
    this.live = new Map(); // name → what this process knows of it
    fs.mkdirSync(folder, { recursive: true, mode: 0o700 });
    for (const name of fs.readdirSync(folder)) if (name.startsWith('fx-')) this.find(name);
  }

  /** The name outside: legal everywhere, and the same whoever works it out. */
  nameOf({ execution, path: step, number }) {
    const raw = createHash('sha256').update(`${this.installation}\n${execution}/${step}#${number}`).digest();
    return `fx-${base32(raw.subarray(0, 20))}`;
  }

  all() {
    return fs.readdirSync(this.folder).filter((each) => each.startsWith('fx-')).map((each) => this.find(each));
  }

  find(name) {
    if (!this.live.has(name)) {
      const folder = path.join(this.folder, name);
      if (!fs.existsSync(path.join(folder, 'attempt.json'))) return undefined;
      this.live.set(name, new Attempt(folder, JSON.parse(fs.readFileSync(path.join(folder, 'attempt.json')))));
    }
    return this.live.get(name);
  }

  /** Start new work. Synchronous, so that of two calls at once the second finds what the first has made. */
  start(request, parameters, files) {
    const name = this.nameOf(request.attempt);
    const folder = path.join(this.folder, name);
    const scratch = path.join(this.folder, `.new-${name}`);
    fs.rmSync(scratch, { recursive: true, force: true });
    fs.mkdirSync(path.join(scratch, 'work'), { recursive: true, mode: 0o700 });
    for (const each of files) {
      const target = path.join(scratch, 'work', each.path);
      fs.mkdirSync(path.dirname(target), { recursive: true });
      fs.copyFileSync(each.content, target);
      if (each.executable) fs.chmodSync(target, 0o755);
    }
    const identity = randomBytes(12).toString('hex');
    const deadline = request.timeLeft && Date.now() + milliseconds(request.timeLeft);
    const facts = { attempt: request.attempt, identity, deadline, graceMs: milliseconds(request.grace) };
    fs.writeFileSync(path.join(scratch, 'script'), parameters.script, { mode: 0o600 });
    fs.writeFileSync(path.join(scratch, 'attempt.json'), JSON.stringify(facts));
    fs.renameSync(scratch, folder);
    const env = {
      PATH: process.env.PATH, HOME: os.homedir(), LANG: 'C.UTF-8', ...parameters.env, ...request.env,
      FLEXCORE_RESULT: path.join(folder, 'result'), [MARK]: identity,
    };
    const argv = ['--fork', 'bash', SUPERVISE, folder, ...(parameters.args ?? []).map(text)];
    spawn('setsid', argv, { env, stdio: 'ignore', detached: true }).unref();
    return this.find(name);
  }

  /** End one and remove what it left. */
  async remove(name, graceMs) {
    const attempt = this.find(name);
    if (!attempt) return;
    await attempt.end('cancelled', graceMs);
    await attempt.over;
    for (const until = Date.now() + READERS_MS; attempt.readers > 0 && Date.now() < until; ) await sleep(LOOK_MS);
    fs.rmSync(attempt.folder, { recursive: true, force: true });
    this.live.delete(name);
  }
}

class Attempt {
  constructor(folder, facts) {
    Object.assign(this, facts, { folder, name: path.basename(folder), readers: 0, isOver: false });
    this.over = this.watch(); // comes to the last event of the attempt
  }

  handle() {
    return { version: 1, name: this.name, identity: this.identity, data: { text: '{}' } };
  }

  /** Give what is written behind the offsets while it is written, then the end. */
  async *read(offsets) {
    this.readers += 1;
    try {
      const at = { stdout: offsets.stdout ?? 0, stderr: offsets.stderr ?? 0 };
      for (;;) {
        const { isOver } = this; // looked at first: what was written before the end is read below
        let quiet = true;
        for (const stream of ['stdout', 'stderr']) {
          const data = this.piece(stream, at[stream]);
          if (!data.length) continue;
          yield { logChunk: { stream, offset: at[stream], data } };
          at[stream] += data.length;
          quiet = false;
        }
        if (quiet && isOver) return yield await this.over;
        if (quiet) await sleep(LOOK_MS);
      }
    } finally {
      this.readers -= 1;
    }
  }

  /** Ask the work to end, and force it after the grace. */
  async end(why, graceMs) {
    if (this.isOver) return;
    if (!this.has('ended')) this.put('ended', why);
    this.signal('SIGTERM');
    for (const until = Date.now() + graceMs; !this.isOver && Date.now() < until; ) await sleep(LOOK_MS);
    while (!this.isOver) {
      this.signal('SIGKILL');
      await sleep(LOOK_MS);
    }
  }

  async watch() {
    for (let looks = 1; ; looks += 1) {
      if (this.has('status') || (looks % 10 === 0 && !this.hasSupervisor())) break;
      if (this.deadline && Date.now() > this.deadline && !this.has('ended')) this.end('timeout', this.graceMs);
      await sleep(LOOK_MS);
    }
    while (this.signal('SIGKILL')) await sleep(LOOK_MS); // what it left behind
    const end = this.outcome();
    this.isOver = true;
    return end;
  }

  outcome() {
    const why = this.get('ended');
    if (why === 'cancelled') return failed('cancelled', 'ended on request');
    if (why === 'timeout') return failed('timeout', 'over its time limit');
    if (!this.has('status')) return failed('lost', 'its processes are gone, and how it ended is not known');
    const code = Number(this.get('status'));
    const signal = Object.entries(os.constants.signals).find(([, number]) => number === code - 128);
    if (signal) return failed('user', `the script was killed by ${signal[0]}`, signal[0]);
    if (code) return failed('user', `the script ended with exit code ${code}`, `exit ${code}`);
    return { finished: this.result() };
  }

  result() {
    const written = this.get('result');
    if (written === undefined) return { output: { text: JSON.stringify(fromOutput(this.get('stdout') ?? '')) } };
    try {
      JSON.parse(written);
      return { output: { text: written.trim() } }; // as it stands: JavaScript would round large numbers
    } catch {
      return failed('user', 'what was written to $FLEXCORE_RESULT is not JSON').finished;
    }
  }

  /** A supervisor that has not put down its number yet has a second to do so. */
  hasSupervisor() {
    const pid = Number(this.get('supervisor'));
    if (pid) return marked(pid, this.identity);
    return Date.now() - fs.statSync(this.folder).birthtimeMs < 1000;
  }

  /** Signal all processes of the attempt; the supervisor stays to put down the end. Say whether there were any. */
  signal(signal) {
    const supervisor = Number(this.get('supervisor'));
    const pids = fs.readdirSync('/proc').map(Number).filter((pid) => pid && marked(pid, this.identity));
    const meant = pids.filter((pid) => pid !== supervisor || this.has('status'));
    for (const pid of meant) {
      try {
        process.kill(pid, signal);
      } catch (error) {
        if (error.code !== 'ESRCH') throw error;
      }
    }
    return meant.length > 0;
  }

  piece(stream, offset) {
    let file;
    try {
      file = fs.openSync(path.join(this.folder, stream));
    } catch {
      return Buffer.alloc(0);
    }
    const buffer = Buffer.alloc(CHUNK);
    const length = fs.readSync(file, buffer, 0, CHUNK, offset);
    fs.closeSync(file);
    return buffer.subarray(0, length);
  }

  has(name) {
    return fs.existsSync(path.join(this.folder, name));
  }

  get(name) {
    return this.has(name) ? fs.readFileSync(path.join(this.folder, name), 'utf8') : undefined;
  }

  put(name, content) {
    fs.writeFileSync(path.join(this.folder, `${name}.new`), content);
    fs.renameSync(path.join(this.folder, `${name}.new`), path.join(this.folder, name));
  }
}

export const milliseconds = (span) => Number(span?.seconds ?? 0) * 1000 + Number(span?.nanos ?? 0) / 1e6;

const text = (value) => (typeof value === 'string' ? value : JSON.stringify(value));

function fromOutput(stdout) {
  try {
    return JSON.parse(stdout.trimEnd().split('\n').at(-1));
  } catch {
    return { stdout, exit_code: 0 };
  }
}

function marked(pid, identity) {
  try {
    return fs.readFileSync(`/proc/${pid}/environ`, 'latin1').split('\0').includes(`${MARK}=${identity}`);
  } catch {
    return false; // it is gone, or another user's
  }
}

function base32(bytes) {
  const bits = [...bytes].map((each) => each.toString(2).padStart(8, '0')).join('');
  return bits.match(/.{5}/g).map((each) => 'abcdefghijklmnopqrstuvwxyz234567'[parseInt(each, 2)]).join('');
}
