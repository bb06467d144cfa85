/** Request bodies of the shape that agents send, in our own words. */

/** What one turn of a coding agent of the Claude Code kind (2.1, November 2026) looks like. */
export interface AgentTurn {
  readonly model: string;
  /** Changes with every request of some versions. */
  readonly cch: string;
  /** The conversation after the first question and its environment note. */
  readonly history?: readonly object[];
}

const cache_control = { type: "ephemeral" } as const;
const text = (words: string, more: object = {}) => ({ type: "text", text: words, ...more });

const parameter = (type: string, description: string) => ({ type, description });
const tool = (name: string, description: string, properties: object, more: object = {}) => ({
  name,
  description: `${description} Use it when the task needs it and tell the user what came of it.`,
  input_schema: {
    $schema: "https://json-schema.org/draft/2020-12/schema",
    type: "object",
    properties,
    required: Object.keys(properties).slice(0, 1),
    additionalProperties: false,
  },
  ...more,
});

const TOOLS = [
  tool("Bash", "Runs a command in a shell.", {
    command: parameter("string", "The command"),
    timeout: parameter("number", "Milliseconds it may take"),
    run_in_background: parameter("boolean", "Whether to go on at once"),
  }),
  tool("Read", "Reads a file.", {
    file_path: parameter("string", "Absolute path"),
    offset: parameter("integer", "First line"),
  }),
  tool("Edit", "Replaces a text in a file.", {
    file_path: parameter("string", "Absolute path"),
    old_string: parameter("string", "What stands there"),
    new_string: parameter("string", "What shall stand there"),
  }),
  tool("ToolSearch", "Finds further tools by name.", { query: parameter("string", "Words") }),
  tool("Placeholder", "Never call this.", {}, { defer_loading: true }),
  { type: "web_search_20260318", name: "web_search", max_uses: 5 },
];

/** The body of one request to /v1/messages?beta=true. */
export function agentBody({ model, cch, history = [] }: AgentTurn) {
  const rules = Array.from(
    { length: 40 },
    (_, i) => `- Rule ${i + 1}: keep to what was asked, and say what you did in step ${i + 1}.`,
  );
  return {
    model,
    messages: [
      {
        role: "user",
        content: [
          text("<system-reminder>\nThe date is known to the tools.\n</system-reminder>\n"),
          text("List the files of this folder."),
        ],
      },
      {
        role: "system",
        content: [text("# Environment\n - Working directory: /srv/project\n", { cache_control })],
      },
      ...history,
    ],
    system: [
      text(`x-anthropic-billing-header: cc_version=2.1.330.abc; cc_entrypoint=cli; cch=${cch};`),
      text("You are an agent for software engineering.", { cache_control }),
      text(`\nYou work with the user toward their goal.\n\n${rules.join("\n")}`, { cache_control }),
    ],
    tools: TOOLS,
    metadata: { user_id: '{"device_id":"0","session_id":"1"}' },
    max_tokens: 32_000,
    thinking: { type: "adaptive", display: "omitted" },
    context_management: { edits: [{ type: "clear_thinking_20251015", keep: "all" }] },
    output_config: { effort: "high" },
    stream: true,
  };
}

/** The headers that go with it. */
export const AGENT_HEADERS = {
  "content-type": "application/json",
  "anthropic-version": "2023-06-01",
  "anthropic-beta": "claude-code-20250219,interleaved-thinking-2025-05-14,zz-beta-2030-01-01",
  authorization: "Bearer none",
  "user-agent": "claude-cli/2.1.330 (external, cli)",
  "x-app": "cli",
};

/** How a conversation goes on after the agent's first call: the call, its result, and tools that became known meanwhile. */
export const agentHistory = (): object[] => [
  {
    role: "assistant",
    content: [
      { type: "thinking", thinking: "", signature: "EqQBCkYIBxgCKkA" },
      text("I look into the folder."),
      {
        type: "tool_use",
        id: "toolu_01",
        name: "Bash",
        input: { command: "ls" },
        caller: { type: "direct" },
      },
    ],
  },
  {
    role: "user",
    content: [
      {
        type: "tool_result",
        tool_use_id: "toolu_01",
        content: [text("README.md\nsrc")],
        is_error: false,
        cache_control,
      },
    ],
  },
  {
    role: "system",
    content: [
      {
        type: "tool_addition",
        tool: {
          type: "tool_definition",
          definition: tool("mcp__notes__add", "Adds a note.", { text: parameter("string", "It") }),
        },
      },
      text("<total_tokens>180000 tokens left</total_tokens>"),
    ],
  },
];
