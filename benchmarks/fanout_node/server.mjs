// The contestant better-sse of benchmarks.fanout, with a channel as its guide has it: node server.mjs PORT.
// String instead of JSON.stringify, as the others don't quote texts either.
import http from "node:http";
import { createChannel, createSession } from "better-sse";

const SIZE = 200;
const channel = createChannel();

const server = http.createServer(async (request, response) => {
  const url = new URL(request.url, "http://127.0.0.1");
  if (url.pathname === "/events") {
    channel.register(await createSession(request, response, { serializer: String }));
    return;
  }
  const first = Number(url.searchParams.get("first"));
  const count = Number(url.searchParams.get("count"));
  for (let number = first; number < first + count; number++) {
    channel.broadcast(`${number} ${process.hrtime.bigint()} `.padEnd(SIZE, "x"));
  }
  response.end("0\n");
});

server.listen({ port: Number(process.argv[2]), host: "127.0.0.1", backlog: 4096 });
