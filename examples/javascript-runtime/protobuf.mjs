// Protocol buffers, as far as `flexcore.runtime.v1` needs them: a table of messages, and the two ways through it.
// Numbers, names and types are those of proto/flexcore/runtime/v1. Fields that are not listed are skipped.

const J = { text: [1, 'string'] };
const ATTEMPT = { execution: [1, 'string'], path: [2, 'string'], number: [3, 'int'] };
const SPAN = { seconds: [1, 'int'], nanos: [2, 'int'] };
const CALLER = { installation: [1, 'string'], interfaces: [2, 'int', 'list'] };
const HANDLE = {
  version: [1, 'int'], name: [2, 'string'], identity: [3, 'string'], data: [4, J], transient: [5, 'bool'],
};
const FAILURE = {
  errorClass: [1, 'int'], name: [2, 'string'], message: [3, 'string'], step: [4, 'string'], attempt: [5, 'int'],
  hint: [6, 'string'],
};
const OF_A_CALLER = { caller: [1, CALLER] };

export const messages = {
  ExecuteRequest: {
    caller: [1, CALLER], attempt: [2, ATTEMPT], token: [3, 'int'], kind: [4, 'string'], parameters: [5, J],
    files: [9, { path: [1, 'string'], digest: [2, 'string'], executable: [3, 'bool'] }, 'list'],
    env: [10, 'string', 'map'], timeLeft: [13, SPAN], grace: [14, SPAN], handle: [15, HANDLE],
    logOffsets: [16, 'int', 'map'],
  },
  ExecuteResponse: {
    missing: [1, { digests: [1, 'string', 'list'] }],
    submitted: [2, { handle: [1, HANDLE], adopted: [2, 'bool'], prepares: [3, 'bool'] }],
    logChunk: [3, { stream: [1, 'string'], offset: [2, 'int'], data: [3, 'bytes'] }],
    finished: [7, { output: [1, J], failure: [2, FAILURE] }],
  },
  UploadRequest: { caller: [1, CALLER], digest: [2, 'string'], data: [3, 'bytes'] },
  UploadResponse: {},
  FindAttemptRequest: { caller: [1, CALLER], attempt: [2, ATTEMPT] },
  FindAttemptResponse: { found: [1, 'bool'] },
  GetHealthRequest: OF_A_CALLER,
  GetHealthResponse: { state: [1, 'string'], reason: [2, 'string'], checkedAt: [3, SPAN], busy: [5, 'int'] },
  GetCapabilitiesRequest: OF_A_CALLER,
  GetCapabilitiesResponse: {
    serverId: [1, 'string'], interface: [2, 'int'],
    capabilities: [3, {
      stepKinds: [1, 'string', 'list'], unsupported: [3, 'string', 'map'], tags: [4, 'string', 'list'],
      versions: [6, 'string', 'map'],
    }],
  },
  CleanupRequest: {
    caller: [1, CALLER],
    attempt: [2, { attempt: [1, ATTEMPT], handle: [2, HANDLE], grace: [3, SPAN] }],
    execution: [3, { execution: [1, 'string'], grace: [2, SPAN] }],
    survey: [4, { installation: [1, 'string'] }],
  },
  CleanupResponse: {
    gone: [1, 'string', 'list'], pending: [2, 'string', 'list'], attempts: [4, ATTEMPT, 'map'],
  },
  Error: { code: [1, 'string'], message: [2, 'string'], hint: [3, 'string'] },
};

/** Write a message. Fields that are undefined are left out; zeros and empty texts are written, which is allowed. */
export function encode(schema, value) {
  const parts = [];
  for (const [name, [number, type, shape]] of Object.entries(schema)) {
    const given = value[name];
    if (given === undefined || given === null) continue;
    if (shape === 'list') for (const each of given) parts.push(field(number, type, each));
    else if (shape === 'map') {
      const entry = { key: [1, 'string'], value: [2, type] };
      for (const [key, each] of Object.entries(given)) parts.push(field(number, entry, { key, value: each }));
    } else parts.push(field(number, type, given));
  }
  return Buffer.concat(parts);
}

/** Read a message. What was not sent is undefined; lists and maps are there, empty. */
export function decode(schema, bytes) {
  const byNumber = new Map(Object.entries(schema).map(([name, [number, type, shape]]) => [number, { name, type, shape }]));
  const value = {};
  for (const { name, shape } of byNumber.values()) if (shape) value[name] = shape === 'list' ? [] : {};
  const reader = { bytes, at: 0 };
  while (reader.at < bytes.length) {
    const tag = Number(varint(reader));
    const raw = payload(reader, tag & 7);
    const found = byNumber.get(tag >>> 3);
    if (found) take(value, found, raw, tag & 7);
  }
  return value;
}

function take(value, { name, type, shape }, raw, wire) {
  if (shape === 'map') {
    const entry = decode({ key: [1, 'string'], value: [2, type] }, raw);
    value[name][entry.key ?? ''] = entry.value ?? (type === 'int' ? 0 : type === 'string' ? '' : {});
  } else if (shape === 'list' && type === 'int' && wire === 2) {
    const packed = { bytes: raw, at: 0 };
    while (packed.at < raw.length) value[name].push(Number(BigInt.asIntN(64, varint(packed))));
  } else if (shape === 'list') value[name].push(scalar(type, raw));
  else value[name] = scalar(type, raw);
}

function scalar(type, raw) {
  if (typeof type === 'object') return decode(type, raw);
  if (type === 'string') return raw.toString('utf8');
  if (type === 'bytes') return raw;
  return type === 'bool' ? raw !== 0n : Number(BigInt.asIntN(64, raw));
}

function payload(reader, wire) {
  if (wire === 0) return varint(reader);
  const length = wire === 2 ? Number(varint(reader)) : wire === 1 ? 8 : wire === 5 ? 4 : undefined;
  if (length === undefined || reader.at + length > reader.bytes.length) throw new RangeError('not a message');
  reader.at += length;
  return reader.bytes.subarray(reader.at - length, reader.at);
}

function varint(reader) {
  let value = 0n;
  for (let shift = 0n; shift < 70n; shift += 7n) {
    if (reader.at >= reader.bytes.length) break;
    const byte = reader.bytes[reader.at++];
    value |= BigInt(byte & 0x7f) << shift;
    if (byte < 0x80) return value;
  }
  throw new RangeError('not a number');
}

function field(number, type, value) {
  if (type === 'int' || type === 'bool') return Buffer.concat([number_(number << 3), number_(value)]);
  const body = typeof type === 'object' ? encode(type, value) : Buffer.from(value);
  return Buffer.concat([number_((number << 3) | 2), number_(body.length), body]);
}

function number_(value) {
  let left = BigInt.asUintN(64, BigInt(value));
  const bytes = [];
  for (; left > 0x7fn; left >>= 7n) bytes.push(Number(left & 0x7fn) | 0x80);
  return Buffer.from([...bytes, Number(left)]);
}
