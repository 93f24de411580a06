/* An EventSource that comes back (MIT license; the guide of ssesync has a page on it). A browser's own gives up for good
   at 502 and 503, does not notice that its connection is dead, and takes one of the six that HTTP/1.1 has for a host. */

const CONNECTING = 0, OPEN = 1, CLOSED = 2;
/* Milliseconds. Browsers run the timers of a hidden page once a minute, so a longer pause is the machine's sleep. */
const TICK = 5000, SLEEP = 75_000;
/* An attempt without an answer is given up. One of the browser's own may first wait for the reconnection time, which a
   page can't read; the longest of ssesync's is 120 s. */
const ANSWER = 30_000, RECONNECTION = 180_000;
/* A connection that has lasted so long has succeeded, even if no event came. */
const STABLE = 10_000;
/* Events that each of several tabs keeps, to give them to tabs that join when it is the leader. */
const KEPT = 500;

const isTemporary = status => status >= 500 || [408, 425, 429].includes(status);

/* Below, at or above 0, as an id of ssesync is older than another one, the same or newer. NaN: they can't be compared. */
function compare(id, other) {
  if (id === other) return 0;
  const [a, b] = [id, other].map(text => /^([0-9a-z]{1,32})-(\d{1,18})$/.exec(text));
  return a && b && a[1] === b[1] ? Number(BigInt(a[2]) - BigInt(b[2])) : NaN;
}

export class Stream extends EventTarget {
  onopen = null; onmessage = null; onerror = null;
  readyState = CONNECTING; lastEventId;
  #url; #options; #types; #source = null; #request; #timer; #ticker; #closing = new AbortController();
  #turn = 0; #attempts = 0; #leastWait = 0; #isRefused = false; #isBrowsers = false;
  #sourceId = ""; #openedAt = Infinity; #activeAt = 0; #tickedAt = Date.now();
  /* Of tabs that share a connection. The leader has the connection, and a lock until it calls `release`. */
  #name; #id; #channel; #candidacy; #release; #isLeader = true; #isJoined = false; #kept = []; #keptAfter = "";

  constructor(url, options = {}) {
    super();
    if (typeof url !== "function") new URL(url, document.baseURI);  /* throws now, where the mistake is */
    this.#url = url;
    this.#options = options = {
      lastEventId: "", withCredentials: false, minWait: 1000, maxWait: 30_000, silence: Infinity,
      keepAliveEvent: "ping", resetEvent: "reset", endEvents: [], share: "",
      ...Object.fromEntries(Object.entries(options).filter(([, value]) => value != null)),
    };
    this.lastEventId = this.#keptAfter = options.lastEventId;
    /* Of an event without a listener a page does not get the id. Runs end with "end". */
    const types = ["message", "end", options.keepAliveEvent, options.resetEvent, ...options.endEvents];
    this.#types = new Set(types.filter(type => type !== "error" && type !== "open"));
    /* Locks are for secure contexts (HTTPS, localhost). Elsewhere each tab has a connection of its own. */
    this.#name = options.share && navigator.locks ? `ssesync ${options.share}` : "";
    for (const type of ["open", "message", "error"]) super.addEventListener(type, event => this[`on${type}`]?.(event));
    const {signal} = this.#closing;
    addEventListener("online", () => this.reconnect(), {signal});
    /* A page in the back/forward cache runs no code, and an open connection keeps a page out of it. */
    addEventListener("pagehide", () => this.#leave(), {signal});
    addEventListener("pageshow", event => { if (event.persisted) this.#enter(); }, {signal});
    document.addEventListener("visibilitychange", () => this.#check(), {signal});
    this.#ticker = setInterval(() => this.#check(), Math.min(TICK, options.silence / 4));
    this.#enter();
  }

  addEventListener(type, ...rest) {
    super.addEventListener(type, ...rest);
    if (type === "open" || type === "error" || this.#types.has(type)) return;
    this.#types.add(type);
    this.#source?.addEventListener(type, this.#receive);
  }

  /* Connect again, now. */
  reconnect() {
    if (this.readyState === CLOSED || !this.#isLeader) return;
    this.#attempts = 0;
    this.#connect();
    this.#change(CONNECTING);
  }

  close() {
    this.readyState = CLOSED;
    this.#closing.abort();
    clearInterval(this.#ticker);
    this.#leave();
  }

  async #connect() {
    this.#disconnect();
    const turn = this.#turn;
    let status = 200, url;
    try {
      /* An EventSource does not say why it was refused. HEAD does, and starts no producer and uses no ticket. */
      if (this.#isRefused) status = await this.#probe();
      if (status === 200) url = await this.#resolve();
    } catch (error) {
      if (turn === this.#turn && typeof this.#url === "function") console.warn(error);
      status = 503;
    }
    if (turn !== this.#turn) return;
    if (url === null) status = 401;
    if (status !== 200) return isTemporary(status) ? this.#retry() : this.#finish(status);
    const source = this.#source = new EventSource(url, {withCredentials: this.#options.withCredentials});
    this.#sourceId = "";
    /* The server may send events of these types, too. They have data. */
    source.onopen = event => "data" in event ? this.#receive(event) : this.#opened();
    source.onerror = event => "data" in event ? this.#receive(event) : this.#failed(source);
    for (const type of this.#types) source.addEventListener(type, this.#receive);
  }

  /* The URL, with the last event id: a new EventSource has none to send as a header. */
  async #resolve() {
    const url = typeof this.#url === "function" ? await this.#url(this.lastEventId) : this.#url;
    if (url == null) return null;
    const resolved = new URL(url, document.baseURI);
    if (this.lastEventId) resolved.searchParams.set("lastEventId", this.lastEventId);
    return resolved;
  }

  async #probe() {
    const url = await this.#resolve(), {signal} = this.#request = new AbortController();
    if (url === null) return 401;
    const options = {credentials: this.#options.withCredentials ? "include" : "same-origin", cache: "no-store", signal};
    const answer = await fetch(url, {method: "HEAD", headers: {Accept: "text/event-stream"}, ...options});
    this.#leastWait = 1000 * Math.min(3600, Number(answer.headers.get("Retry-After")) || 0);
    /* A server without HEAD may have the stream nevertheless. */
    return [405, 501].includes(answer.status) ? 200 : answer.status;
  }

  #disconnect() {
    this.#turn += 1;
    clearTimeout(this.#timer);
    this.#request?.abort();
    this.#source?.close();
    this.#source = null;
    this.#isBrowsers = false;
    this.#activeAt = Date.now();
  }

  #opened() {
    this.#openedAt = this.#activeAt = Date.now();
    this.#isRefused = this.#isBrowsers = false;
    this.#change(OPEN);
  }

  #failed(source) {
    this.#activeAt = Date.now();
    if (source.readyState === CONNECTING && typeof this.#url !== "function") {
      /* The browser reconnects by itself, after the server's reconnection time. */
      this.#isBrowsers = true;
      this.#change(CONNECTING);
    } else {
      this.#isRefused = source.readyState === CLOSED;
      this.#retry();
    }
  }

  #retry() {
    const {minWait, maxWait} = this.#options;
    if (Date.now() - this.#openedAt > STABLE) this.#attempts = 0;
    this.#openedAt = Infinity;
    /* At random, so that the pages of a server that comes back do not all come at once. */
    const wait = this.#leastWait + Math.min(maxWait, minWait * 2 ** this.#attempts) * (0.5 + Math.random() / 2);
    this.#attempts += 1;
    this.#leastWait = 0;
    this.#disconnect();
    this.#activeAt += wait;
    this.#timer = setTimeout(() => this.#connect(), wait);
    this.#change(CONNECTING);
  }

  #change(state) {
    if (this.readyState === CLOSED) return;
    this.readyState = state;
    if (this.#isLeader) this.#post({state});
    this.dispatchEvent(new Event(state === OPEN ? "open" : "error"));
  }

  #receive = ({type, data, lastEventId}) => {
    this.#activeAt = Date.now();
    this.#attempts = 0;
    /* Without an id of its own an event has that of the one before it on this connection. */
    const item = {type, data, id: lastEventId === this.#sourceId ? "" : lastEventId};
    this.#sourceId = lastEventId;
    this.#post({item});
    this.#take(item);
  };

  #take(item) {
    const {type, data, id} = item;
    /* A tab may have loaded a newer state than the leader has events. */
    if (this.readyState === CLOSED || (this.#name && id && compare(id, this.lastEventId) <= 0)) return;
    this.lastEventId = id || this.lastEventId;
    if (type === this.#options.resetEvent) [this.#kept, this.#keptAfter] = [[], this.lastEventId];
    else if (this.#name && id && this.#kept.push(item) > KEPT) this.#keptAfter = this.#kept.shift().id;
    const event = new MessageEvent(type, {data, lastEventId: this.lastEventId});
    this.dispatchEvent(event);
    if (type === this.#options.resetEvent) this.#options.onreset?.(event);
    if (this.#options.endEvents.includes(type)) this.#finish(204, event);
  }

  #finish(status, event = null) {
    if (this.readyState === CLOSED) return;
    if (this.#isLeader && !event) this.#post({finished: status});
    this.close();
    if (status === 204) this.#options.onend?.(event);
    else this.#options.onrefused?.(status);
    this.dispatchEvent(new Event("error"));
  }

  #check() {
    const now = Date.now(), {silence} = this.#options, hasSlept = now - this.#tickedAt > SLEEP;
    this.#tickedAt = now;
    if (this.#isLeader) {
      const limit = this.readyState === OPEN ? silence : this.#isBrowsers ? RECONNECTION : Math.min(silence, ANSWER);
      if (hasSlept || now - this.#activeAt > limit) this.reconnect();
    } else if (now - this.#activeAt > 2 * silence) {
      this.#elect(true);  /* The leader is frozen: some browsers suspend hidden tabs. */
    } else if (hasSlept) this.#join();
  }

  /* One connection for several tabs. Not by a SharedWorker: not every mobile browser has it, it needs a script of its own,
     and a function that makes URLs can't be passed to it. */

  #enter() {
    this.readyState = CONNECTING;
    if (!this.#name) return this.#connect();
    this.#isLeader = this.#isJoined = false;
    this.#channel = new BroadcastChannel(this.#name);
    this.#channel.onmessage = ({data}) => this.#hear(data);
    this.#elect();
    this.#join();
  }

  #leave() {
    this.#candidacy?.abort();
    this.#disconnect();
    this.#release?.();
    this.#channel?.close();
    this.#channel = null;
  }

  #elect(steal = false) {
    this.#candidacy?.abort();
    const {signal} = this.#candidacy = new AbortController();
    const lead = () => new Promise(release => {
      if (signal.aborted) return release();
      [this.#release, this.#isLeader] = [release, true];
      this.#post({isLeader: true});
      this.#connect();
      if (this.readyState === OPEN) this.#change(CONNECTING);
    });
    navigator.locks.request(this.#name, steal ? {steal} : {signal}, lead).catch(() => {
      if (signal.aborted) return;
      /* Another tab has taken the lock, as this one was frozen. */
      this.#isLeader = false;
      this.#disconnect();
      this.#elect();
      this.#join();
    });
  }

  #post(message) { this.#channel?.postMessage(message); }

  #join() {
    this.#activeAt = Date.now();
    this.#id = crypto.randomUUID();
    this.#post({joining: this.#id, after: this.lastEventId});
  }

  #hear({state, item, isLeader, joining, after, to, items, isLost, lastEventId, finished}) {
    if (joining && this.#isLeader) {
      const isLost = after !== "" && this.#keptAfter !== "" && !(compare(after, this.#keptAfter) >= 0);
      const items = after ? this.#kept.filter(({id}) => compare(id, after) > 0) : [];
      this.#post({to: joining, items, isLost, state: this.readyState, lastEventId: this.lastEventId});
    }
    if (joining || this.#isLeader || (to && to !== this.#id)) return;
    this.#activeAt = Date.now();
    if (isLeader) this.#join();
    /* One answer: a tab that was frozen as the leader may give another one. */
    if (to) [this.#isJoined, this.#id] = [true, ""];
    if (to && !this.lastEventId) this.lastEventId = this.#keptAfter = lastEventId;
    if (isLost) this.#take({type: this.#options.resetEvent, data: "{}", id: lastEventId});
    /* The answer to a tab that joins has all events before it. */
    for (const each of items ?? (item && this.#isJoined ? [item] : [])) this.#take(each);
    if (finished) this.#finish(finished);
    else if (state !== undefined && (state !== this.readyState || state === CONNECTING)) this.#change(state);
  }
}
