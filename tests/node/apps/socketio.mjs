// A Socket.IO server as its own documentation shows it, with its default heartbeat.

import { createServer } from 'node:http';
import { Server } from 'socket.io';

const report = (event, fields = {}) => console.log(JSON.stringify({ event, ...fields }));
const server = createServer();
const io = new Server(server);

io.on('connection', (socket) => {
  report('connection', { transport: socket.conn.transport.name });
  socket.conn.on('upgrade', ({ name }) => report('upgrade', { transport: name }));
  socket.conn.on('close', () => report('transport closed'));
  socket.on('shout', (text, bytes, answer) => answer(text.toUpperCase(), bytes));
  socket.on('disconnect', (reason) => report('disconnect', { reason }));
});

server.listen(0, '127.0.0.1', () => report('listening', { port: server.address().port }));
