/* Clients of AI SDK, by commands on the standard input: {client, send: {chat, text}}, {client, resume: {chat}},
   {client, leave: {}} and {client, regenerate: {}}. Each change of an answer's text is reported, and each end. */

import {createInterface} from "node:readline";
import {AbstractChat, DefaultChatTransport} from "ai";

const [url] = process.argv.slice(2);
const clients = new Map();
const report = values => console.log(JSON.stringify(values));
const textOf = message => message.parts.map(part => part.text ?? "").join("");

/* What useChat() of the frameworks' packages adds to the class: a place for the messages. */
class Messages {
  status = "ready"; error = undefined; messages = [];
  constructor(client) { this.client = client; }
  pushMessage = message => { this.messages = [...this.messages, message]; this.changed(message); };
  popMessage = () => { this.messages = this.messages.slice(0, -1); };
  replaceMessage = (index, message) => { this.messages = this.messages.with?.(index, message)
    ?? this.messages.map((each, i) => i === index ? message : each); this.changed(message); };
  snapshot = value => structuredClone(value);
  changed(message) { if (message.role === "assistant") report({client: this.client, text: textOf(message)}); }
}

class Transport extends DefaultChatTransport {
  chunks = [];
  processResponseStream(stream) {
    const note = (chunk, controller) => { this.chunks.push(chunk.type); controller.enqueue(chunk); };
    return super.processResponseStream(stream).pipeThrough(new TransformStream({transform: note}));
  }
}

class Chat extends AbstractChat {
  constructor(client, id) {
    const transport = new Transport({api: `${url}api/chat`, fetch: async (...request) => {
      const response = await fetch(...request);
      this.protocol = response.headers.get("x-vercel-ai-ui-message-stream");
      this.statusOfResponse = response.status;
      return response;
    }});
    super({id, transport, state: new Messages(client), onFinish: ({isAbort, isError}) => { this.finished = {isAbort, isError}; }});
    this.chunks = transport.chunks;
  }
}

async function perform(client, {send, resume, leave, regenerate}) {
  if (leave) return clients.get(client).stop();
  const chat = clients.get(client) ?? new Chat(client, (send ?? resume).chat);
  clients.set(client, chat);
  chat.chunks.length = 0;
  if (send) await chat.sendMessage({text: send.text});
  else if (resume) await chat.resumeStream();
  else if (regenerate) await chat.regenerate();
  const answers = chat.messages.filter(({role}) => role === "assistant").map(textOf);
  const {protocol, statusOfResponse, chunks, finished, status, error} = chat;
  report({client, ended: {protocol, response: statusOfResponse, chunks, finished, status, error: error?.message, answers}});
}

for await (const line of createInterface({input: process.stdin})) {
  const {client, ...command} = JSON.parse(line);
  perform(client, command).catch(error => report({client, failed: String(error)}));
}
