// A page, a greeting as JSON, server-sent events and a WebSocket, with nothing but Node.
'use strict';

const http = require('node:http');

const websocket = require('./websocket');

const page = `<!doctype html>
<title>web-node</title>
<h1>It runs</h1>
<p>Ask for a greeting: <a href="hello?name=Alice">hello?name=Alice</a></p>
<p>Server-sent events: <output></output></p>
<script>
  const output = document.querySelector('output');
  const events = new EventSource('events');
  events.onmessage = (event) => { output.textContent += event.data + ' '; };
  events.onerror = () => events.close();
</script>
`;

const server = http.createServer((request, response) => {
  const url = new URL(`http://localhost${request.url}`);
  if (url.pathname === '/') {
    response.setHeader('Content-Type', 'text/html; charset=utf-8');
    response.end(page);
  } else if (url.pathname === '/hello') {
    const name = url.searchParams.get('name') ?? 'World';
    response.setHeader('Content-Type', 'application/json');
    response.end(JSON.stringify({ msg: `Hello ${name}` }));
  } else if (url.pathname === '/events') {
    count(response);
  } else {
    response.writeHead(404, { 'Content-Type': 'text/plain; charset=utf-8' });
    response.end('not found\n');
  }
});

// Counts to five, one event at a time.
function count(response) {
  response.writeHead(200, { 'Content-Type': 'text/event-stream', 'Cache-Control': 'no-cache' });
  let sent = 0;
  const timer = setInterval(() => {
    sent += 1;
    response.write(`data: ${sent}\n\n`);
    if (sent === 5) response.end();
  }, 200);
  response.on('close', () => clearInterval(timer));
}

// Answers every message with itself.
server.on('upgrade', (request, socket) => {
  const { pathname } = new URL(`http://localhost${request.url}`);
  if (pathname === '/ws') {
    websocket.accept(request, socket, (message, send) => send(message));
  } else {
    socket.end('HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n');
  }
});

server.listen(Number(process.env.PORT) || 0, '127.0.0.1', () => {
  console.log(`web-node listens on http://127.0.0.1:${server.address().port}`);
});

process.on('SIGTERM', () => {
  server.close(() => process.exit(0));
  // A WebSocket may stay open for ever.
  setTimeout(() => process.exit(0), 5000).unref();
});
