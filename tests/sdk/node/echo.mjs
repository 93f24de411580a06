// Prints its argument, a variable, and each object that it is sent.
import { createInterface } from "node:readline";

console.log(JSON.stringify({ arguments: process.argv.slice(2), variable: process.env.SENT }));
for await (const line of createInterface({ input: process.stdin })) {
  const object = JSON.parse(line);
  if (object.fail) throw new Error(object.fail);
  console.log(JSON.stringify(object));
}
