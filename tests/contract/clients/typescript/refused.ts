// Lines that the compiler must refuse: it reports an `@ts-expect-error` without an error below it.

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
export const noProviders: AtClient = {};

// @ts-expect-error: a provider is a string, not a number.
export const number: AtClient = { providers: [1] };

// @ts-expect-error: there is no such member.
export const unknownMember: AtClient = { providers: ["gas"], callbackUrl: "https://example.com/bills" };

// @ts-expect-error: the aggregator needs a callback URL.
export const noCallback: AtAggregator = { providers: ["gas"] };

// @ts-expect-error: a job update has no such status.
export const outcome: Body<aggregator.operations["updateJob"]> = { provider: "gas", status: "OPEN" };

// @ts-expect-error: there is no such status.
export const isDone = (request: Request): boolean => request.status === "DONE";

// @ts-expect-error: the job may still be open.
export const length = (request: Request): number => request.jobs[0]!.endedAt.length;

// @ts-expect-error: a result is of unknown type and must be narrowed first.
export const amount = (request: Request): number => request.jobs[0]!.result.amount;

// @ts-expect-error: `wait` is a number.
export const wait: NonNullable<client.operations["getRequest"]["parameters"]["query"]> = { wait: "5" };

// @ts-expect-error: no operation deletes a request.
export const removed: NonNullable<client.paths["/requests/{requestId}"]["delete"]> = {};
