// gRPC over Node's own HTTP/2, for unary calls and streams of answers. Listens on loopback, without TLS.

import { createHash, timingSafeEqual } from 'node:crypto';
import http2 from 'node:http2';
import { decode, encode, messages } from './protobuf.mjs';

const STATUS = { invalid_request: 3, unauthenticated: 16, fenced: 10, runtime_unavailable: 14, unavailable: 14 };

/** What a caller is told instead of an answer: a code of FlexCore's, a sentence, and what to do about it. */
export class Refusal extends Error {
  constructor(code, message, hint = '') {
    super(message);
    this.code = code;
    this.hint = hint;
  }
}

/** Serve methods by name, each an async function of the request, or an async generator for a stream of answers. */
export function serve(service, methods, token, { host, port }) {
  const server = http2.createServer();
  server.on('stream', (stream, headers) => {
    stream.on('error', () => {}); // the caller went away; whoever writes notices
    answer(stream, headers, service, methods, token).catch((error) => fail(stream, error));
  });
  return new Promise((resolve, reject) => {
    server.on('error', reject);
    server.listen(port, host, () => resolve({ server, address: `${host}:${server.address().port}` }));
  });
}

async function answer(stream, headers, service, methods, token) {
  stream.respond({ ':status': 200, 'content-type': 'application/grpc' }, { waitForTrailers: true });
  if (!same(headers.authorization ?? '', `Bearer ${token}`)) throw new Refusal('unauthenticated', 'a valid token is needed');
  const [, called, name] = (headers[':path'] ?? '').split('/');
  if (called !== service || !methods[name]) return end(stream, 12, 'no such method');
  const request = decode(messages[`${name}Request`], await body(stream));
  const result = methods[name](request);
  const replies = result[Symbol.asyncIterator] ? result : [await result];
  try {
    for await (const each of replies) {
      if (stream.destroyed) return undefined;
      await write(stream, encode(messages[`${name}Response`], each));
    }
  } finally {
    await replies.return?.();
  }
  return end(stream, 0);
}

async function body(stream) {
  const pieces = [];
  for await (const each of stream) pieces.push(each);
  return Buffer.concat(pieces).subarray(5); // one byte that says "not compressed", four of length
}

function write(stream, message) {
  const head = Buffer.alloc(5);
  head.writeUInt32BE(message.length, 1);
  return new Promise((resolve) => {
    stream.once('close', resolve);
    stream.write(Buffer.concat([head, message]), () => {
      stream.off('close', resolve);
      resolve();
    });
  });
}

function fail(stream, error) {
  if (!(error instanceof Refusal)) console.error(error);
  const told = error instanceof Refusal ? error : new Refusal('internal', `the runtime broke: ${error.message}`);
  const carried = encode(messages.Error, { code: told.code, message: told.message, hint: told.hint });
  end(stream, STATUS[told.code] ?? 13, told.message, { 'flexcore-error-bin': carried.toString('base64') });
}

function end(stream, status, message = '', more = {}) {
  if (stream.destroyed) return;
  const trailers = { 'grpc-status': String(status), 'grpc-message': encodeURIComponent(message), ...more };
  stream.once('wantTrailers', () => stream.sendTrailers(trailers));
  stream.end();
}

function same(given, wanted) {
  const digest = (text) => createHash('sha256').update(text).digest();
  return timingSafeEqual(digest(given), digest(wanted)); // takes as long for a near miss as for a far one
}
