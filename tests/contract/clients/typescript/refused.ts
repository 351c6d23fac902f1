// What the compiler has to refuse: an `@ts-expect-error` with no error below it is an error of its own.

import type * as aggregator from "./datahog-aggregator.js";
import type * as client from "./datahog-client.js";

type Body<Operation extends { requestBody?: { content: { "application/json": unknown } } }> = NonNullable<
  Operation["requestBody"]
>["content"]["application/json"];
type AtClient = Body<client.operations["createRequest"]>;
type AtAggregator = Body<aggregator.operations["createRequest"]>;
type Request = client.operations["getRequest"]["responses"][200]["content"]["application/json"];

export const right: AtClient = { providers: ["gas"], deadline: "2026-11-27T10:00:00.000Z" };
export const rightToo: AtAggregator = { providers: ["gas"], callbackUrl: "https://example.com/bills" };

// @ts-expect-error: the providers are missing.
export const nobody: AtClient = {};

// @ts-expect-error: a provider is named, not numbered.
export const number: AtClient = { providers: [1] };

// @ts-expect-error: there is no such member.
export const unknownMember: AtClient = { providers: ["gas"], callbackUrl: "https://example.com/bills" };

// @ts-expect-error: the aggregator has to know where to post the result.
export const noCallback: AtAggregator = { providers: ["gas"] };

// @ts-expect-error: no job ends so.
export const outcome: Body<aggregator.operations["updateJob"]> = { provider: "gas", status: "OPEN" };

// @ts-expect-error: there is no such status.
export const isDone = (request: Request): boolean => request.status === "DONE";

// @ts-expect-error: it may not have ended.
export const length = (request: Request): number => request.jobs[0]!.endedAt.length;

// @ts-expect-error: what a provider has sent may be anything, so it has to be looked at first.
export const amount = (request: Request): number => request.jobs[0]!.result.amount;

// @ts-expect-error: `wait` is a number.
export const wait: NonNullable<client.operations["getRequest"]["parameters"]["query"]> = { wait: "5" };

// @ts-expect-error: nothing can be deleted.
export const removed: NonNullable<client.paths["/requests/{requestId}"]["delete"]> = {};
