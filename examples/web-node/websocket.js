// The server's half of a WebSocket (RFC 6455), as much as an example needs.
'use strict';

const { createHash } = require('node:crypto');

const GUID = '258EAFA5-E914-47DA-95CA-C5AB0DC85B11';
const CONTINUATION = 0, CLOSE = 8, PING = 9, PONG = 10;
const MAX_MESSAGE = 1 << 20;

// Answers the upgrade `request` and calls `onMessage(message, send)` for each message.
exports.accept = (request, socket, onMessage) => {
  const key = request.headers['sec-websocket-key'];
  if (request.headers.upgrade?.toLowerCase() !== 'websocket' || !key) {
    socket.end('HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n');
    return;
  }
  const accept = createHash('sha1').update(key + GUID).digest('base64');
  socket.write(
    'HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n' +
      `Sec-WebSocket-Accept: ${accept}\r\n\r\n`,
  );

  let received = Buffer.alloc(0);
  let parts = [];
  let kind = 0;
  socket.on('error', () => socket.destroy());
  socket.on('end', () => socket.end());
  socket.on('data', (chunk) => {
    received = Buffer.concat([received, chunk]);
    for (let frame; (frame = takeFrame()); ) {
      if (frame.opcode === CLOSE) return socket.end(encode(CLOSE, frame.payload.subarray(0, 2)));
      if (frame.opcode === PING) socket.write(encode(PONG, frame.payload));
      if (frame.opcode >= CLOSE) continue;
      if (frame.opcode !== CONTINUATION) [kind, parts] = [frame.opcode, []];
      parts.push(frame.payload);
      const message = Buffer.concat(parts);
      if (message.length > MAX_MESSAGE) return fail(1009);
      if (frame.last) onMessage(message, (answer) => socket.write(encode(kind, answer)));
    }
  });

  function fail(code) {
    received = Buffer.alloc(0);
    socket.end(encode(CLOSE, Buffer.from([code >> 8, code & 255])));
  }

  // The next whole frame of what was received, or nothing yet.
  function takeFrame() {
    if (received.length < 2) return undefined;
    let length = received[1] & 127;
    let start = 2;
    if (length === 126) {
      if (received.length < 4) return undefined;
      [length, start] = [received.readUInt16BE(2), 4];
    } else if (length === 127) {
      if (received.length < 10) return undefined;
      [length, start] = [Number(received.readBigUInt64BE(2)), 10];
    }
    // Clients must mask what they send.
    if (!(received[1] & 128)) return fail(1002);
    if (length > MAX_MESSAGE) return fail(1009);
    if (received.length < start + 4 + length) return undefined;
    const mask = received.subarray(start, start + 4);
    const payload = Buffer.from(received.subarray(start + 4, start + 4 + length));
    for (let i = 0; i < length; i++) payload[i] ^= mask[i & 3];
    const frame = { last: (received[0] & 128) !== 0, opcode: received[0] & 15, payload };
    received = received.subarray(start + 4 + length);
    return frame;
  }
};

function encode(opcode, payload) {
  const length = payload.length;
  let head;
  if (length < 126) {
    head = Buffer.from([128 | opcode, length]);
  } else if (length < 65536) {
    head = Buffer.from([128 | opcode, 126, length >> 8, length & 255]);
  } else {
    head = Buffer.alloc(10);
    head.set([128 | opcode, 127]);
    head.writeBigUInt64BE(BigInt(length), 2);
  }
  return Buffer.concat([head, payload]);
}
