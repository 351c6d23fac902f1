// Verifies callbacks as their receiver does. Reads a list of {secret, headers, body, later} and prints for each null, or
// why it is refused; `later` are the seconds by which its clock has gone on since.
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
