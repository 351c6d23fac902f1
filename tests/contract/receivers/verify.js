// Verifies callbacks as their receiver does. Reads a list of {secret, headers, body, later}; prints for each callback
// null or the reason of the refusal. `later` is the number of seconds by which the receiver's clock is ahead.
import { readFileSync } from "node:fs";
import { Webhook } from "standardwebhooks";

const now = Date.now;

function refusal({ secret, headers, body, later }) {
  Date.now = () => now() + later * 1000;
  try {
    new Webhook(secret).verify(body, headers);
    return null;
  } catch (error) {
    return `${error.name}: ${error.message}`;
  }
}

console.log(JSON.stringify(JSON.parse(readFileSync(0, "utf8")).map(refusal)));
