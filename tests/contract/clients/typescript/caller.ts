// A user's program over the generated types: completes one request at each API, and prints the results.

import createClient from "openapi-fetch";
import type * as aggregator from "./datahog-aggregator.js";
import type * as client from "./datahog-client.js";

declare const process: { argv: string[] };

const [clientUrl = "", aggregatorUrl = "", key = "", callbackUrl = ""] = process.argv.slice(2);
const headers = { Authorization: `Bearer ${key}` };
const providers = ["gas", "steady"];

async function completeAtClient(): Promise<client.components["schemas"]["ClientRequest"]> {
  const api = createClient<client.paths>({ baseUrl: clientUrl, headers });
  let { data, error } = await api.POST("/requests", { body: { providers } });
  while (data?.status === "OPEN") {
    const params = { path: { requestId: data.requestId }, query: { wait: 5 } };
    ({ data, error } = await api.GET("/requests/{requestId}", { params }));
  }
  if (data === undefined) throw new Error(error?.detail);
  return data;
}

async function completeAtAggregator(): Promise<aggregator.components["schemas"]["Request"]> {
  const api = createClient<aggregator.paths>({ baseUrl: aggregatorUrl, headers });
  const params = { header: { "Idempotency-Key": callbackUrl } };
  let { data, error } = await api.POST("/requests", { params, body: { providers, callbackUrl } });
  while (data?.status === "OPEN") {
    const params = { path: { requestId: data.requestId }, query: { wait: 5 } };
    ({ data, error } = await api.GET("/requests/{requestId}", { params }));
  }
  if (data === undefined) throw new Error(error?.detail);
  return data;
}

async function problemOfUnknownProvider(): Promise<client.components["schemas"]["Problem"]> {
  const api = createClient<client.paths>({ baseUrl: clientUrl, headers });
  const { error } = await api.POST("/requests", { body: { providers: ["unknown"] } });
  if (error === undefined) throw new Error("expected a problem");
  return error;
}

const printed = {
  client: await completeAtClient(),
  aggregator: await completeAtAggregator(),
  problem: await problemOfUnknownProvider(),
};
console.log(JSON.stringify(printed));
