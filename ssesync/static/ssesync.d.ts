/** Options of a {@link Stream}. All times are in milliseconds. */
export interface StreamOptions {
  /** Where to begin: the id of the last event that the page has, such as the position of the state that it shows. */
  lastEventId?: string;
  /** Send cookies to another origin, as for EventSource. */
  withCredentials?: boolean;
  /**
   * The time without any event after which the connection counts as dead. Two to three times the server's `keep_alive`,
   * and only with its `keep_alive_event`, as pages do not see comments. Without it there is no limit.
   */
  silence?: number;
  /** The server's `keep_alive_event`: "ping". */
  keepAliveEvent?: string;
  /** The server's `reset_event`, by its type: "reset". */
  resetEvent?: string;
  /** Types of final events: the stream is closed after one. Without them a 204 ends it, one request later. */
  endEvents?: string[];
  /** The first wait after a refused connection, 1,000. It doubles with each, and half of it is random. */
  minWait?: number;
  /** The longest wait, 30,000. A longer `Retry-After` is added to it. */
  maxWait?: number;
  /**
   * Share one connection between all tabs of the origin whose streams have this name. They need the same URL, the same
   * user, and listeners for the same types. In insecure contexts (HTTP, except localhost) each tab has its own.
   */
  share?: string;
  /** Called after an event that says that events were lost: load the state again. */
  onreset?: (event: MessageEvent<string>) => void;
  /** Called when the stream has ended for good: with the final event, or null after a 204. */
  onend?: (event: MessageEvent<string> | null) => void;
  /** Called when the server refuses for good: with 401, 403, 404, …; 401 also if the function of the URL returned null. */
  onrefused?: (status: number) => void;
}

/**
 * The URL of a stream, or a function that makes one for each connection, for a new ticket for example. It is given the
 * last event id, which is also added to the URL as `lastEventId`. Null: no more connections, as the user has to sign in.
 * If it throws, it is called again later.
 */
export type StreamURL =
  | string
  | URL
  | ((lastEventId: string) => string | URL | null | Promise<string | URL | null>);

/**
 * An EventSource that comes back after refusals, sleep and dead connections. It can be used in place of one: `open` and
 * `error` are dispatched as there, and `readyState` is 2 (CLOSED) only when the stream has ended for good.
 */
export class Stream extends EventTarget {
  constructor(url: StreamURL, options?: StreamOptions);
  /** 0: connecting, or waiting to. 1: open. 2: closed for good. */
  readonly readyState: 0 | 1 | 2;
  readonly lastEventId: string;
  onopen: ((event: Event) => void) | null;
  onmessage: ((event: MessageEvent<string>) => void) | null;
  onerror: ((event: Event) => void) | null;
  /** Connect again at once, with the last event id. */
  reconnect(): void;
  /** Close for good. None of the callbacks is called. Other tabs that share the connection go on. */
  close(): void;
  addEventListener(
    type: "open",
    listener: (event: Event) => void,
    options?: boolean | AddEventListenerOptions,
  ): void;
  addEventListener(
    type: string,
    listener: (event: MessageEvent<string>) => void,
    options?: boolean | AddEventListenerOptions,
  ): void;
  addEventListener(
    type: string,
    listener: EventListenerOrEventListenerObject | null,
    options?: boolean | AddEventListenerOptions,
  ): void;
}
