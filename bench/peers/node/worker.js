// The worker: fetches from the providers, and posts the callback when the last job is complete.
import { createHmac } from "node:crypto";
import { Agent, request } from "undici";
import { open, retried } from "./queues.js";
import { concurrency, providersUrl, secret } from "./settings.js";
import * as store from "./store.js";

const dispatcher = new Agent({ connections: concurrency, headersTimeout: 30_000, bodyTimeout: 30_000 });
const fetches = open("fetch", { worker: true });
const deliveries = open("deliver", { worker: true });

fetches.process(concurrency, async (job) => {
  const { id, provider } = job.data;
  let outcome;
  try {
    outcome = ["DONE", JSON.stringify(await get(`${providersUrl}/${provider}`))];
  } catch (error) {
    // The last attempt's failure is an outcome too; Bee-queue repeats the others.
    if (job.options.retries > 0) throw error;
    outcome = ["FAILED", String(error)];
  }
  if (await store.endJob(id, provider, ...outcome)) await retried(deliveries.createJob({ id })).save();
});

deliveries.process(concurrency, async (job) => {
  const { Item } = await store.read(job.data.id);
  if (Item.status.S === "DELIVERED") return;
  await post(Item.callbackUrl.S, Item.id.S, JSON.stringify({ requestId: Item.id.S, jobs: jobsOf(Item) }));
  await store.delivered(Item.id.S);
});

function jobsOf(item) {
  return Object.entries(item.jobs.M).map(([provider, { M: { status, result } }]) =>
    status.S === "DONE"
      ? { provider, status: status.S, result: JSON.parse(result.S) }
      : { provider, status: status.S, error: result.S },
  );
}

async function get(url) {
  const answer = await request(url, { dispatcher });
  if (answer.statusCode < 200 || answer.statusCode > 299) {
    await answer.body.dump();
    throw new Error(`HTTP ${answer.statusCode}`);
  }
  return answer.body.json();
}

// Signs as Standard Webhooks requires.
async function post(url, id, body) {
  const timestamp = String(Math.floor(Date.now() / 1000));
  const signature = createHmac("sha256", secret).update(`msg_${id}.${timestamp}.${body}`).digest("base64");
  const headers = {
    "content-type": "application/json",
    "webhook-id": `msg_${id}`,
    "webhook-timestamp": timestamp,
    "webhook-signature": `v1,${signature}`,
  };
  const answer = await request(url, { method: "POST", dispatcher, headers, body });
  await answer.body.dump();
  if (answer.statusCode < 200 || answer.statusCode > 299) throw new Error(`HTTP ${answer.statusCode}`);
}
