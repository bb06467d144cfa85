import type { Settings } from "#front/config";
import type { Pool } from "#front/pool";

interface Greeting {
  readonly settings: Settings;
  readonly origin: string;
  readonly pool: Pool;
  readonly version: string;
}

/** Weights below this are a model that chats, but should not be believed. */
const SMALL_BYTES = 500e6;
const LOOPBACK = /^(?:localhost|127\.|::1$|\[::1\])/;

/** What the user sees when the server is up: where it is, what to try, and what not to expect. */
export function greeting({ settings, origin, pool, version }: Greeting): string {
  const { defaultModel } = pool.status();
  const entries = pool.list();
  const entry = entries.find(({ id }) => id === defaultModel);
  const lines = [`oMLX ${version} serves ${origin}/v1`];
  if (entries.length > 0) {
    const names = entries.map(({ id, problem }) => {
      const note = id === defaultModel ? " (default)" : problem === undefined ? "" : " (unusable)";
      return id + note;
    });
    lines.push(`Models: ${names.join(", ")}`);
  }
  if (entry) {
    const near = origin.replace(/\/\/(?:0\.0\.0\.0|\[::\]):/, "//127.0.0.1:");
    const key = settings.apiKey === "" ? "" : ` -H 'Authorization: Bearer '"$OMLX_API_KEY"`;
    lines.push(
      `Try: curl ${near}/v1/chat/completions${key} -H 'Content-Type: application/json' -d '{"messages":[{"role":"user","content":"What is the capital of France?"}],"temperature":0}'`,
    );
  } else {
    lines.push(`No model to answer with yet: put one into ${settings.modelDir.join(" or ")}`);
  }
  if (entry && entry.weightBytes < SMALL_BYTES) {
    lines.push(
      `${entry.id} is a very small model: it answers easy questions and is often wrong. For a better one put a folder in MLX format`,
      `(config.json, safetensors, tokenizer.json; families: see the README) into ${settings.modelDir[0]}, or name its parent with --model-dir.`,
    );
  }
  if (settings.apiKey === "" && !LOOPBACK.test(settings.host)) {
    lines.push(
      `WARNING: everybody who reaches ${settings.host} can use this server; --api-key KEY asks for a key.`,
    );
  }
  return `${lines.join("\n")}\n`;
}
