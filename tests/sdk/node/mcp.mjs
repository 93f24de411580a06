// The official client of the Model Context Protocol, version 2025-11-25, against the server whose URL is its argument.
// It connects through a TCP relay of its own, which can cut all connections.
import { connect, createServer } from "node:net";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { CallToolResultSchema, ResourceListChangedNotificationSchema } from "@modelcontextprotocol/sdk/types.js";

const server = new URL(process.argv[2]);
const sockets = new Set();
const relay = createServer((client) => {
  const upstream = connect(Number(server.port), server.hostname);
  for (const [from, to] of [[client, upstream], [upstream, client]]) {
    sockets.add(from);
    from.on("close", () => { sockets.delete(from); to.destroySoon(); });
    from.on("error", () => {});
    from.pipe(to);
  }
});
await new Promise((resolve) => relay.listen(0, "127.0.0.1", resolve));
const cut = () => sockets.forEach((socket) => socket.resetAndDestroy());
const relayed = new URL(server.pathname, `http://127.0.0.1:${relay.address().port}`);

const requests = []; // of each its method, its last event ID and the status of its answer
async function recorded(input, options) {
  const response = await fetch(input, options);
  requests.push([options.method, new Headers(options.headers).get("last-event-id"), response.status]);
  return response;
}

const reconnectionOptions = {
  initialReconnectionDelay: 50, maxReconnectionDelay: 1000, reconnectionDelayGrowFactor: 1.5, maxRetries: 20,
};
async function connected(url, sessionId, handler) {
  const client = new Client({ name: "test", version: "1" });
  if (handler) client.setNotificationHandler(ResourceListChangedNotificationSchema, handler);
  await client.connect(new StreamableHTTPClientTransport(url, { fetch: recorded, reconnectionOptions, sessionId }));
  return client;
}

async function until(holds) {
  while (!holds()) await new Promise((resolve) => setTimeout(resolve, 10));
}

const print = (step, fields) => console.log(JSON.stringify({ step, ...fields }));
const textOf = (result) => result.content[0].text;
const counting = (to, pause) => ({ name: "count", arguments: { to, pause } });
let written = 0;
const write = (client) =>
  client.callTool({ name: "write_note", arguments: { name: `node${process.pid}x${++written}`, text: "" } });

let changes = 0;
const client = await connected(relayed, undefined, () => { changes += 1; });
const other = await connected(server);
print("connected", { protocol: client.transport.protocolVersion, server: client.getServerVersion().name });

print("tools", { names: (await client.listTools()).tools.map((tool) => tool.name) });
print("add", { text: textOf(await client.callTool({ name: "add", arguments: { a: 1, b: 2 } })) });
print("unknown", { code: (await client.callTool({ name: "missing" }).catch((error) => error)).code });
let steps = [];
const onprogress = ({ progress }) => steps.push(progress);
print("count", { text: textOf(await client.callTool(counting(4, 0.01), undefined, { onprogress })), steps });

await until(() => requests.filter(([method]) => method === "GET").length === 2); // both have their stream
await write(other);
await until(() => changes === 1);

steps = [];
const missed = [];
const cutAtThree = ({ progress }) => {
  steps.push(progress);
  if (progress !== 3) return;
  cut();
  missed.push(write(other), write(other));
};
print("cut", { text: textOf(await client.callTool(counting(20, 0.02), undefined, { onprogress: cutAtThree })), steps });
await Promise.all([...missed, write(other)]);
await until(() => changes >= written);
print("notified", { changes, written });

// A client that is gone: another one gets the result, by its session and by the last id that it has received.
const gone = await connected(server);
let resumptionToken;
await new Promise((resolve) => {
  const onresumptiontoken = (token) => { resumptionToken = token; };
  const leave = ({ progress }) => progress === 3 && resolve();
  gone.callTool(counting(20, 0.02), undefined, { onresumptiontoken, onprogress: leave }).catch(() => {});
});
const { sessionId } = gone.transport;
await gone.close();
const heir = await connected(server, sessionId);
const call = { method: "tools/call", params: counting(20, 0.02) };
print("resumed", { text: textOf(await heir.request(call, CallToolResultSchema, { resumptionToken })) });

// This client begins its ids anew, so the id of this call is that of the other client's.
print("same id", { text: textOf(await heir.callTool(counting(2, 0.01))) });

// A call that is cancelled: its stream ends without an answer. The client tries to resume it once, and gets 204.
const abort = new AbortController();
const before = requests.length;
const options = { signal: abort.signal, onprogress: () => abort.abort("enough") };
const cancelled = await heir.callTool(counting(10_000, 0.02), undefined, options).catch((error) => error);
await until(() => requests.length >= before + 3); // the call, the notification and the GET
const statuses = requests.slice(before).map(([method, , status]) => `${method} ${status}`).sort();
print("cancelled", { message: cancelled.message, statuses });

await heir.transport.terminateSession();
const late = await connected(server, sessionId);
print("terminated", { answer: requests.at(-1), code: (await late.listTools().catch((error) => error)).code });
for (const each of [client, other, heir, late]) await each.close();
relay.close();
print("end", {});
