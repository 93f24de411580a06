// The clients for Node, each as its users would use it: node sources.mjs NAME TASK. Task and output: client_process.py.
const [name, argument] = process.argv.slice(2);
const task = JSON.parse(argument);

const print = (report) => console.log(JSON.stringify(report));
const given = (type = null, data, id = null) => print({ kind: "event", type, data, id });
const reconnects = () => print({ kind: "reconnect" });

function ends() {
  print({ kind: "end" });
  process.exit();
}

function fails(error) {
  print({ kind: "error", error: error.name ?? "Error", message: String(error.message ?? error) });
  process.exit();
}

/** The request, as fetch takes it. */
function request() {
  const headers = { "X-Options": JSON.stringify(task.options) };
  if (task.method === "GET") return { method: "GET", headers };
  const body = JSON.stringify({ model: task.model, count: task.count });
  return { method: "POST", headers: { ...headers, "Content-Type": "application/json" }, body };
}

/** Read with an EventSource of the standard's interface, which is closed where the server refuses, as it does by a 204. */
function follow(source) {
  for (const type of task.types) {
    source.addEventListener(type, (event) => {
      if ("data" in event) given(event.type, event.data, event.lastEventId);
      else if (source.readyState === source.CLOSED) ends();
      else reconnects();
    });
  }
}

const clients = {
  async "eventsource"() {
    const { EventSource } = await import("eventsource");
    follow(new EventSource(task.url));
  },

  async "undici"() {
    const { EventSource } = await import("undici");
    follow(new EventSource(task.url));
    setInterval(() => {}, 60_000); // its timer does not keep the process running while it waits to reconnect
  },

  async "eventsource-client"() {
    const { createEventSource } = await import("eventsource-client");
    const source = createEventSource({
      url: task.url,
      ...request(),
      onMessage: (event) => given(event.event, event.data, event.id),
      // It has no errors: a stream that ends, one that breaks and a refusal are all a reason to connect again.
      onScheduleReconnect: reconnects,
      onDisconnect: () => queueMicrotask(() => source.readyState === "closed" && ends()),
    });
  },

  async "fetch-event-source"() {
    // What it needs of a page.
    globalThis.window = globalThis;
    globalThis.document = { hidden: false, addEventListener() {}, removeEventListener() {} };
    const { fetchEventSource } = await import("@microsoft/fetch-event-source");
    const { fetch } = await import("undici");
    const follows = task.method === "GET";
    let over = false;
    try {
      await fetchEventSource(task.url, {
        ...request(),
        async onopen(response) {
          over = response.status === 204;
          if (!response.ok || over) throw new Error(`HTTP ${response.status}`);
        },
        // Node's own, up to Node 20, takes an answer that is cut off for a whole one if it has "Connection: close".
        fetch,
        onmessage: (event) => given(event.event, event.data, event.id),
        // It takes each end for that of the answer. Thrown, it is an error, after which it connects again.
        onclose() {
          if (follows) throw new Error("closed");
        },
        // Without this it connects again, even if that means a second POST.
        onerror(error) {
          if (!follows || over) throw error;
          reconnects();
        },
      });
    } catch (error) {
      if (!over) return fails(error);
    }
    ends();
  },
};

await clients[name]();
