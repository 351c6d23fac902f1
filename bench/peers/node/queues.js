// The queues. A process that only enqueues jobs needs no worker's connection, and no process listens to job events.
import Queue from "bee-queue";
import { redisUrl } from "./settings.js";

const RETRIES = 20;

export function open(name, { worker }) {
  return new Queue(name, {
    redis: redisUrl,
    isWorker: worker,
    getEvents: false,
    sendEvents: false,
    storeJobs: false,
    removeOnSuccess: true,
    activateDelayedJobs: worker,
    stallInterval: 30_000,
  });
}

export function retried(job) {
  return job.retries(RETRIES).backoff("exponential", 1000);
}
