// Bee-queue alone: `node noop.js fill <count>` enqueues jobs that do nothing, `node noop.js` runs them.
import { open } from "./queues.js";
import { concurrency } from "./settings.js";

const [, , command, count] = process.argv;
const queue = open("noop", { worker: command !== "fill" });

if (command === "fill") {
  for (let made = 0; made < Number(count); made += 1000) {
    const size = Math.min(1000, Number(count) - made);
    await queue.saveAll(Array.from({ length: size }, () => queue.createJob({})));
  }
  await queue.close();
} else {
  queue.process(concurrency, async () => {});
}
