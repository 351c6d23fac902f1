// The API: writes a request to DynamoDB, and enqueues its jobs in one round trip.
import { randomUUID } from "node:crypto";
import Fastify from "fastify";
import { open, retried } from "./queues.js";
import { port } from "./settings.js";
import * as store from "./store.js";

const fetches = open("fetch", { worker: false });
const app = Fastify();

const body = {
  type: "object",
  required: ["providers", "callbackUrl"],
  properties: {
    providers: { type: "array", minItems: 1, maxItems: 50, items: { type: "string" } },
    callbackUrl: { type: "string", pattern: "^https?://", maxLength: 2048 },
  },
};

app.post("/requests", { schema: { body } }, async (request, reply) => {
  const id = randomUUID();
  const { providers, callbackUrl } = request.body;
  await store.create(id, providers, callbackUrl);
  const failed = await fetches.saveAll(providers.map((provider) => retried(fetches.createJob({ id, provider }))));
  if (failed.size) throw new Error("the queue does not take the jobs");
  reply.code(202);
  return { requestId: id, status: "OPEN" };
});

await app.listen({ host: "127.0.0.1", port });
