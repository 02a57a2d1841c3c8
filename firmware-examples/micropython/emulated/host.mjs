// Runs the board's files unchanged on the real MicroPython, compiled to WebAssembly, in Node:
//   node host.mjs FOLDER_OF_NODE_MODULES ADDRESS:PORT key=value …
// The board can reach that address and port and nothing else. It gives MicroPython what a board has and WebAssembly has not: a blocking socket (socket.py beside this file) and random
// numbers. The sockets live in a thread of their own, so that MicroPython can wait for them without an event loop.
import { randomBytes } from "node:crypto";
import { readFileSync, writeSync } from "node:fs";
import { pathToFileURL } from "node:url";
import { Worker } from "node:worker_threads";

const [modules, only, ...pairs] = process.argv.slice(2);
const here = new URL(".", import.meta.url);
const shared = new SharedArrayBuffer(8 + 65536);
const state = new Int32Array(shared, 0, 2); // answered, result
const bytes = new Uint8Array(shared, 8);
const worker = new Worker(new URL("sockets.mjs", here), { workerData: { shared, only } });

// Asks the socket thread and waits. What is waited for has a deadline there.
function call(operation, ...rest) {
  Atomics.store(state, 0, 0);
  worker.postMessage([operation, ...rest]);
  Atomics.wait(state, 0, 0);
  return state[1];
}

const link = {
  open: () => call("open"),
  connect: (id, host, port, ms) => call("connect", id, host, port, ms),
  send: (id, hex, ms) => call("send", id, hex, ms),
  receive: (id, count, ms) => call("receive", id, count, ms),
  received: (count) => Buffer.from(bytes.slice(0, count)).toString("hex"),
  close: (id) => call("close", id),
  random: (count) => randomBytes(count).toString("hex"),
};

const package_ = `${modules}/@micropython/micropython-webassembly-pyscript/micropython.mjs`;
const { loadMicroPython } = await import(pathToFileURL(package_));
const micropython = await loadMicroPython({
  heapsize: 256 * 1024, // as much as a small board has
  stdout: (line) => writeSync(1, `${line}\n`),
});
for (const [folder, names] of [["../", ["cbor.py", "config.py", "link.py", "main.py", "tidegate.py", "test_golden.py"]], ["", ["socket.py", "os.py"]]]) {
  for (const name of names) micropython.FS.writeFile(`/${name}`, readFileSync(new URL(folder + name, here)));
}
micropython.registerJsModule("_link", link);
if (pairs[0]?.startsWith("golden=")) {
  const folder = pairs[0].slice(7);
  const names = readFileSync(`${folder}/index.txt`, "utf8").match(/^\S+/gm);
  micropython.FS.mkdir("/golden");
  for (const name of ["index.txt", ...names]) micropython.FS.writeFile(`/golden/${name}`, readFileSync(`${folder}/${name}`));
  micropython.runPython("import test_golden\ntest_golden.main('/golden')\nstatus = 0");
} else {
  micropython.globals.set("pairs", JSON.stringify(pairs));
  micropython.runPython("import json, main\nstatus = main.main(json.loads(pairs))");
}
// The socket thread must not keep the program alive.
process.exit(micropython.globals.get("status"));
