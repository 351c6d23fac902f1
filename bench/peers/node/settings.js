// The settings, read from the environment.
const env = process.env;

export const port = Number(env.PORT);
export const concurrency = Number(env.CONCURRENCY);
export const dynamodbUrl = env.DYNAMODB_URL;
export const redisUrl = env.REDIS_URL;
export const providersUrl = env.PROVIDERS_URL;
export const secret = Buffer.from((env.WEBHOOK_SECRET ?? "").replace("whsec_", ""), "base64");
