// The socket thread: TCP connections by number, to one address and port. Each call is answered with one number: a length, or minus an errno.
import { connect } from "node:net";
import { workerData, parentPort } from "node:worker_threads";

const ENETUNREACH = -101, ETIMEDOUT = -110, ECONNREFUSED = -111;
const { shared, only } = workerData;
const state = new Int32Array(shared, 0, 2);
const bytes = new Uint8Array(shared, 8);
const sockets = [];

const later = (ms, result) => new Promise((done) => setTimeout(() => done(result), Math.max(ms, 1)));

const operations = {
  open: () => sockets.push({ got: Buffer.alloc(0), over: false, wake: () => {} }) - 1,
  connect(id, host, port, ms) {
    if (`${host}:${port}` !== only) return ENETUNREACH;
    const link = sockets[id];
    const opened = new Promise((done) => {
      link.tcp = connect({ host, port }, () => done(0));
      link.tcp.on("error", () => { link.over = true; link.wake(); done(ECONNREFUSED); });
      link.tcp.on("close", () => { link.over = true; link.wake(); });
      link.tcp.on("data", (piece) => { link.got = Buffer.concat([link.got, piece]); link.wake(); });
    });
    return Promise.race([opened, later(ms, ETIMEDOUT)]);
  },
  send(id, hex, ms) {
    const data = Buffer.from(hex, "hex");
    const sent = new Promise((done) => sockets[id].tcp.write(data, (error) => done(error ? -32 : data.length)));
    return Promise.race([sent, later(ms, ETIMEDOUT)]);
  },
  async receive(id, count, ms) {
    const link = sockets[id];
    if (link.got.length === 0 && !link.over) {
      await Promise.race([new Promise((done) => { link.wake = done; }), later(ms)]);
    }
    const piece = link.got.subarray(0, Math.min(count, bytes.length));
    link.got = link.got.subarray(piece.length);
    bytes.set(piece);
    return piece.length > 0 || link.over ? piece.length : ETIMEDOUT;
  },
  close(id) {
    sockets[id].tcp?.end();
    return 0;
  },
};

parentPort.on("message", async ([operation, ...rest]) => {
  state[1] = await operations[operation](...rest);
  Atomics.store(state, 0, 1);
  Atomics.notify(state, 0);
});
