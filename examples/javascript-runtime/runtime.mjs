// A runtime for FlexCore in JavaScript, without a package: runs `bash` steps as processes of this machine.
//
//   FLEXCORE_TOKEN=… node runtime.mjs FOLDER [HOST:PORT]

import { createHash, randomBytes } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { Attempts, failed, milliseconds } from './attempts.mjs';
import { Refusal, serve } from './grpc.mjs';

const INTERFACE = 1;
const KEYS = ['script', 'args', 'env'];
const UNSUPPORTED = {
  resource_limits: 'this example does not limit memory',
  usage: 'this example does not measure',
};

class Runtime {
  constructor(folder) {
    this.folder = folder;
    this.tenants = new Map();
    fs.mkdirSync(path.join(folder, 'files'), { recursive: true, mode: 0o700 });
    this.id = this.once('server-id', () => `srv_${randomBytes(12).toString('hex')}`);
  }

  async *Execute(request) {
    const tenant = this.tenant(request.caller);
    const name = tenant.attempts.nameOf(request.attempt);
    const wrong = problem(request);
    if (wrong) return yield failed('input', wrong);
    if (request.handle) {
      const found = tenant.attempts.find(name);
      if (found?.identity !== request.handle.identity) return yield failed('lost', 'the work is not here any more');
      yield { submitted: { handle: found.handle(), adopted: true } };
      return yield* found.read(request.logOffsets);
    }
    const files = request.files.map((each) => ({ ...each, content: this.content(each.digest) }));
    const missing = files.filter((each) => !fs.existsSync(each.content)).map((each) => each.digest);
    if (missing.length) return yield { missing: { digests: [...new Set(missing)] } };
    await tenant.enter(request);
    const there = tenant.attempts.find(name);
    const attempt = there ?? tenant.attempts.start(request, JSON.parse(request.parameters.text), files);
    yield { submitted: { handle: attempt.handle(), adopted: there !== undefined } };
    yield* attempt.read(request.logOffsets);
  }

  async Upload({ caller, digest, data = Buffer.alloc(0) }) {
    this.tenant(caller);
    const target = this.content(digest);
    if (`sha256-${createHash('sha256').update(data).digest('hex')}` !== digest) throw new Refusal('invalid_request', 'not the content of the digest');
    fs.writeFileSync(`${target}.new`, data);
    fs.renameSync(`${target}.new`, target);
    return {};
  }

  async FindAttempt({ caller, attempt }) {
    const { attempts } = this.tenant(caller);
    return { found: attempts.find(attempts.nameOf(attempt)) !== undefined };
  }

  async GetHealth({ caller }) {
    const { attempts } = this.tenant(caller);
    const busy = attempts.all().filter((each) => !each.isOver).length;
    return { state: 'up', reason: `Node ${process.version} runs here`, checkedAt: { seconds: Math.floor(Date.now() / 1000) }, busy };
  }

  async GetCapabilities({ caller }) {
    this.tenant(caller);
    const capabilities = { stepKinds: ['bash'], unsupported: UNSUPPORTED, tags: [], versions: { node: process.version } };
    return { serverId: this.id, interface: INTERFACE, capabilities };
  }

  async Cleanup({ caller, attempt, execution, survey }) {
    const tenant = this.tenant(caller);
    const { attempts } = tenant;
    if (survey) {
      const there = survey.installation === caller.installation ? attempts.all() : [];
      return { pending: there.map((each) => each.name), attempts: Object.fromEntries(there.map((each) => [each.name, each.attempt])) };
    }
    const meant = attempt
      ? [attempt.attempt]
      : attempts.all().map((each) => each.attempt).filter((each) => each.execution === execution.execution);
    const names = meant.map((each) => attempts.nameOf(each));
    for (const each of meant) tenant.leave(each);
    await Promise.all(names.map((each) => attempts.remove(each, milliseconds((attempt ?? execution).grace))));
    return { gone: names };
  }

  tenant({ installation = '', interfaces = [] } = {}) {
    if (!interfaces.includes(INTERFACE)) throw new Refusal('runtime_unavailable', `this runtime speaks interface ${INTERFACE}`);
    if (!/^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$/.test(installation)) throw new Refusal('invalid_request', 'not an installation');
    if (!this.tenants.has(installation)) this.tenants.set(installation, new Tenant(path.join(this.folder, installation), installation));
    return this.tenants.get(installation);
  }

  content(digest) {
    if (!/^sha256-[0-9a-f]{64}$/.test(digest)) throw new Refusal('invalid_request', 'not a digest');
    return path.join(this.folder, 'files', digest);
  }

  once(name, make) {
    const file = path.join(this.folder, name);
    if (!fs.existsSync(file)) fs.writeFileSync(file, make());
    return fs.readFileSync(file, 'utf8');
  }
}

/** What belongs to one installation: its attempts, and the newest token of each step. */
class Tenant {
  constructor(folder, installation) {
    this.attempts = new Attempts(path.join(folder, 'attempts'), installation);
    this.tokens = path.join(folder, 'tokens');
    fs.mkdirSync(this.tokens, { recursive: true, mode: 0o700 });
  }

  /** Let an attempt in, unless it comes too late; one that it replaces is ended first. */
  async enter({ attempt, token }) {
    for (;;) {
      const mark = this.mark(attempt);
      if (mark && (token < mark.token || attempt.number < mark.number || (attempt.number === mark.number && mark.ended))) {
        throw new Refusal('fenced', 'the attempt comes too late: a newer one was here, or it was cleaned up');
      }
      const older = mark && attempt.number > mark.number && this.attempts.nameOf({ ...attempt, number: mark.number });
      if (!older || !this.attempts.find(older)) return this.put(attempt, { token, number: attempt.number, ended: false });
      await this.attempts.remove(older, 0); // meanwhile this one may have been cleaned up: look again
    }
  }

  /** Note that an attempt is cleaned up. */
  leave(attempt) {
    const mark = this.mark(attempt);
    if (!mark || attempt.number >= mark.number) this.put(attempt, { token: mark?.token ?? 0, number: attempt.number, ended: true });
  }

  mark(attempt) {
    const file = this.file(attempt);
    return fs.existsSync(file) ? JSON.parse(fs.readFileSync(file)) : undefined;
  }

  put(attempt, mark) {
    fs.writeFileSync(`${this.file(attempt)}.new`, JSON.stringify(mark), { flush: true });
    fs.renameSync(`${this.file(attempt)}.new`, this.file(attempt));
  }

  file({ execution, path: step }) {
    return path.join(this.tokens, createHash('sha256').update(`${execution}\n${step}`).digest('hex'));
  }
}

/** Say what is wrong with a request before anything is started. */
function problem({ kind, parameters, files }) {
  if (kind !== 'bash') return `a ${kind} step cannot run here, only bash`;
  const given = JSON.parse(parameters.text || '{}');
  const unknown = Object.keys(given).filter((each) => !KEYS.includes(each));
  if (unknown.length) return `unknown parameters: ${unknown.join(', ')}; known are ${KEYS.join(', ')}`;
  if (typeof given.script !== 'string') return 'script: a text is needed';
  if (files.some(({ path: name }) => name.split('/').some((part) => ['', '.', '..'].includes(part)))) return 'a path leads out of the folder';
  return '';
}

const [folder, listen = '127.0.0.1:9192'] = process.argv.slice(2);
const token = process.env.FLEXCORE_TOKEN ?? '';
if (!folder || token.length < 16) {
  console.error('usage: FLEXCORE_TOKEN=(at least 16 characters) node runtime.mjs FOLDER [127.0.0.1:PORT]');
  process.exit(2);
}
const runtime = new Runtime(path.resolve(folder));
const methods = Object.fromEntries(
  ['Execute', 'Upload', 'FindAttempt', 'GetHealth', 'GetCapabilities', 'Cleanup'].map((name) => [name, (request) => runtime[name](request)]),
);
const [host, port] = listen.split(':');
if (host !== '127.0.0.1') throw new Error('requests hold secrets, and this example has no TLS: listen on 127.0.0.1');
const { address } = await serve('flexcore.runtime.v1.RuntimeService', methods, token, { host, port: Number(port) });
console.log(`listening on ${address}`);
