// The requests in DynamoDB: one conditional write sets each outcome, and also tells whether it was the last one.
import { DynamoDBClient, GetItemCommand, PutItemCommand, UpdateItemCommand } from "@aws-sdk/client-dynamodb";
import { NodeHttpHandler } from "@smithy/node-http-handler";
import http from "node:http";
import { concurrency, dynamodbUrl } from "./settings.js";

const TableName = "peer";
const client = new DynamoDBClient({
  endpoint: dynamodbUrl,
  region: process.env.AWS_DEFAULT_REGION,
  maxAttempts: 5,
  requestHandler: new NodeHttpHandler({
    httpAgent: new http.Agent({ keepAlive: true, maxSockets: concurrency }),
    socketAcquisitionWarningTimeout: 60_000,
  }),
});

export async function create(id, providers, callbackUrl) {
  const jobs = providers.map((provider) => [provider, { M: { status: { S: "INIT" } } }]);
  await client.send(
    new PutItemCommand({
      TableName,
      Item: {
        id: { S: id },
        callbackUrl: { S: callbackUrl },
        status: { S: "OPEN" },
        openJobs: { N: String(jobs.length) },
        jobs: { M: Object.fromEntries(jobs) },
      },
      ConditionExpression: "attribute_not_exists(id)",
    }),
  );
}

// Resolves to whether this outcome was the last of its request. A job that runs again after its outcome was set reads
// the record, so that nothing is lost when a worker is killed between the write and the next queue.
export async function endJob(id, provider, status, result) {
  try {
    const { Attributes } = await client.send(
      new UpdateItemCommand({
        TableName,
        Key: { id: { S: id } },
        UpdateExpression: "SET jobs.#provider = :job ADD openJobs :minus",
        ConditionExpression: "jobs.#provider.#status = :init",
        ExpressionAttributeNames: { "#provider": provider, "#status": "status" },
        ExpressionAttributeValues: {
          ":job": { M: { status: { S: status }, result: { S: result } } },
          ":init": { S: "INIT" },
          ":minus": { N: "-1" },
        },
        ReturnValues: "UPDATED_NEW",
      }),
    );
    return Attributes.openJobs.N === "0";
  } catch (error) {
    if (error.name !== "ConditionalCheckFailedException") throw error;
    const { Item } = await read(id);
    return Item.openJobs.N === "0";
  }
}

export function read(id) {
  return client.send(new GetItemCommand({ TableName, Key: { id: { S: id } }, ConsistentRead: true }));
}

export async function delivered(id) {
  await client.send(
    new UpdateItemCommand({
      TableName,
      Key: { id: { S: id } },
      UpdateExpression: "SET #status = :delivered",
      ExpressionAttributeNames: { "#status": "status" },
      ExpressionAttributeValues: { ":delivered": { S: "DELIVERED" } },
    }),
  );
}
