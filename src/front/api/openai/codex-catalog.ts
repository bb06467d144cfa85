import type { ModelEntry } from "#core/contract";

/** What Codex tells a model first; a catalog's text takes the place of its own. */
const INSTRUCTIONS = `You are a coding agent in a terminal on the user's machine. Look at files and run commands with the tools you have before you
answer, change only what the task asks for, check your work, and say briefly what you did. Never invent the output of a command.`;

/** Of a tool's output, in characters. */
const OUTPUT_LIMIT = 10_000;

/** Whether a request comes from Codex, which reads more of a list of models than OpenAI's clients do. */
export function isCodex(request: Request): boolean {
  const { searchParams } = new URL(request.url);
  const agent = request.headers.get("user-agent") ?? "";
  return searchParams.has("client_version") || /^codex/i.test(agent);
}

/** A model as Codex's catalog has it (ModelInfo in its protocol crate). */
export function encodeForCodex(entry: ModelEntry, priority: number) {
  return {
    slug: entry.id,
    display_name: entry.id,
    description: `${entry.modelType}, on this machine`,
    supported_reasoning_levels: [],
    shell_type: "shell_command",
    visibility: "list",
    supported_in_api: true,
    priority,
    upgrade: null,
    base_instructions: INSTRUCTIONS,
    supports_reasoning_summaries: true,
    support_verbosity: false,
    default_verbosity: null,
    apply_patch_tool_type: "freeform",
    truncation_policy: { mode: "bytes", limit: OUTPUT_LIMIT },
    supports_parallel_tool_calls: true,
    ...(entry.contextWindow > 0 ? { context_window: entry.contextWindow } : {}),
    experimental_supported_tools: [],
    input_modalities: ["text"],
  };
}
