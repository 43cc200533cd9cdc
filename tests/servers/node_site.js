// Serves files, one worker at a time. SIGHUP: a new worker takes over, the old one ends its sessions and connections
// gracefully. The options are in node.py.
'use strict';
const cluster = require('cluster');
const fs = require('fs');
const http = require('http');
const http2 = require('http2');
const https = require('https');

const options = JSON.parse(process.argv[2]);

if (cluster.isPrimary) {
  const start = () => cluster.fork();
  let current = start();
  process.on('SIGHUP', () => {
    const old = current;
    current = start();
    current.once('listening', () => { if (old.isConnected()) old.send('leave'); });
  });
  process.on('SIGTERM', () => {
    for (const worker of Object.values(cluster.workers)) worker.process.kill('SIGKILL');
    process.exit(0);
  });
} else {
  const pem = options.door === 'cleartext' ? null : fs.readFileSync(options.pem);
  const sessions = new Set();

  const answer = (request, response) => {
    if (request.url === '/ready') {
      response.writeHead(204);
      response.end();
      return;
    }
    const body = fs.readFileSync(options.pages + '/' + parseInt(request.url.slice(1), 10));
    let asked = 0;
    request.on('data', (chunk) => { asked += chunk.length; });
    request.on('end', () => {
      response.writeHead(200, {'content-type': 'application/octet-stream', 'content-length': body.length, 'x-asked': asked});
      response.end(body);
      fs.appendFileSync(options.log, `200 HTTP/${request.httpVersion} ${request.url}\n`);
    });
  };

  let server;
  if (options.door === 'h2') {
    server = http2.createSecureServer({key: pem, cert: pem, allowHTTP1: true}, answer);
    server.on('session', (session) => {
      let count = 0;
      sessions.add(session);
      session.on('close', () => sessions.delete(session));
      session.on('error', () => {});
      if (options.idle !== null) session.setTimeout(options.idle, () => session.close());
      session.on('stream', () => {
        count += 1;
        if (count === options.requestsEach) session.close();
      });
    });
    server.on('sessionError', () => {});
  } else {
    server = options.door === 'tls' ? https.createServer({key: pem, cert: pem}, answer) : http.createServer(answer);
    if (options.requestsEach) server.maxRequestsPerSocket = options.requestsEach;
    if (options.idle !== null) server.keepAliveTimeout = options.idle;
  }
  server.on('clientError', (error, socket) => socket.destroy());
  server.listen(options.port, options.host);
  process.on('message', (message) => {
    if (message !== 'leave') return;
    for (const session of sessions) session.close();
    cluster.worker.disconnect();
  });
}
