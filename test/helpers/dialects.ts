import type { Tool } from "#core/contract";
import { TokenTrie } from "../../src/front/text/added-tokens.ts";
import { toTemplateInput } from "../../src/front/text/template/conversation.ts";
import { ChatTemplate } from "../../src/front/text/template/render.ts";

/** Tools of every recorded output. */
export const TOOLS: readonly Tool[] = [
  {
    name: "get_weather",
    description: "Tells the weather of a place",
    parameters: {
      type: "object",
      properties: {
        city: { type: "string" },
        days: { type: "integer" },
        units: { type: "string", enum: ["metric", "imperial"] },
        detailed: { type: "boolean" },
      },
      required: ["city"],
    },
  },
  {
    name: "write_file",
    description: "Writes a file",
    parameters: {
      type: "object",
      properties: {
        path: { type: "string" },
        content: { type: "string" },
        options: { type: "object" },
        tags: { type: "array", items: { type: "string" } },
      },
      required: ["path", "content"],
    },
  },
  { name: "now", description: "Tells the time", parameters: { type: "object", properties: {} } },
];

export interface ExpectedCall {
  readonly name: string;
  readonly arguments: Readonly<Record<string, unknown>>;
}

/** What the assistant said in the conversation that every family's template renders. */
export const TURN = {
  reasoning: "Two things.\nFirst one.",
  text: "I look.",
  calls: [
    { name: "get_weather", arguments: { city: "São", days: 3, detailed: true } },
    {
      name: "write_file",
      arguments: {
        path: 'a "b"',
        content: 'x\n\t{2} <b>"y"</b> \\d 🙂\n\nz',
        options: { a: [1, null, { b: false }] },
        tags: [],
      },
    },
  ] satisfies readonly ExpectedCall[],
};

export interface Family {
  readonly name: string;
  /** Name of the dialect that this template stands for. */
  readonly dialect: string;
  /** Renders system, user, assistant (reasoning, content, tool_calls) and tool turns as the family's public template does. */
  readonly template: string;
  /** What stands before and after the assistant's turn of the rendered text. */
  readonly turn: readonly [before: string, after: string];
  /** Added tokens of the family's tokenizer that matter here. */
  readonly tokens: readonly string[];
  /** The template leaves these out. */
  readonly lacks?: readonly ("reasoning" | "text")[];
  /** The template writes one call only. */
  readonly calls?: number;
}

const CHATML_HEAD = `{%- if tools %}{{- '<|im_start|>system\\n' }}{%- if messages[0].role == 'system' %}{{- messages[0].content + '\\n\\n' }}{%- endif %}{{- '# Tools\\n<tools>' }}{%- for tool in tools %}{{- '\\n' }}{{- tool | tojson }}{%- endfor %}{{- '\\n</tools>\\n' }}HOW{{- '<|im_end|>\\n' }}{%- endif %}`;

/** ChatML with a family's own way of writing calls; \`calls\` renders m.tool_calls. */
const chatml = (how: string, calls: string) =>
  `${CHATML_HEAD.replace("HOW", `{{- '${how}' }}`)}
{%- for m in messages %}
  {%- if m.role == 'assistant' %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if m.reasoning_content %}{{- '<think>\\n' + m.reasoning_content.strip('\\n') + '\\n</think>\\n\\n' }}{%- endif %}
    {{- m.content }}
    {%- if m.tool_calls %}${calls}{%- endif %}
    {{- '<|im_end|>\\n' }}
  {%- elif m.role == 'tool' %}
    {{- '<|im_start|>user\\n<tool_response>\\n' + m.content + '\\n</tool_response><|im_end|>\\n' }}
  {%- elif m.role != 'system' or not loop.first or not tools %}
    {{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}
  {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}`;

const CHATML_TURN = ["<|im_start|>assistant\n", "<|im_end|>\n"] as const;
const CHATML_TOKENS = ["<think>", "</think>", "<tool_call>", "</tool_call>"];

const each = (body: string, separator = "") =>
  `{%- for c in m.tool_calls %}{%- set f = c.function %}${body}${separator === "" ? "" : `{%- if not loop.last %}{{- '${separator}' }}{%- endif %}`}{%- endfor %}`;

/** How each family writes the same turn. */
export const FAMILIES: readonly Family[] = [
  {
    name: "Qwen 3",
    dialect: "hermes",
    template: chatml(
      'For each call: <tool_call>\\n{"name": …, "arguments": …}\\n</tool_call>',
      each(
        `{{- '\\n<tool_call>\\n{"name": "' + f.name + '", "arguments": ' }}{{- f.arguments | tojson }}{{- '}\\n</tool_call>' }}`,
      ),
    ),
    turn: CHATML_TURN,
    tokens: CHATML_TOKENS,
  },
  {
    name: "Qwen3-Coder",
    dialect: "qwen3-coder",
    template: chatml(
      "For each call: <tool_call>\\n<function=name>\\n<parameter=key>\\nvalue\\n</parameter>\\n</function>\\n</tool_call>",
      each(
        "{{- '\\n<tool_call>\\n<function=' + f.name + '>\\n' }}{%- for k, v in f.arguments.items() %}{{- '<parameter=' + k + '>\\n' }}{{- v if v is string else v | tojson }}{{- '\\n</parameter>\\n' }}{%- endfor %}{{- '</function>\\n</tool_call>' }}",
      ),
    ),
    turn: CHATML_TURN,
    tokens: CHATML_TOKENS,
  },
  {
    name: "GLM 4.5",
    dialect: "glm",
    template: `{%- if tools %}{{- '[gMASK]<sop><|system|>\\n# Tools' }}{%- for t in tools %}{{- '\\n' }}{{- t | tojson }}{%- endfor %}{{- '\\n<tool_call>name<arg_key>…' }}{%- endif %}
{%- for m in messages %}{%- if m.role == 'assistant' %}{{- '<|assistant|>' }}{%- if m.reasoning_content %}{{- '\\n<think>' + m.reasoning_content.strip() + '</think>' }}{%- else %}{{- '\\n<think></think>' }}{%- endif %}{%- if m.content %}{{- '\\n' + m.content.strip() }}{%- endif %}{%- if m.tool_calls %}${each(
      "{{- '\\n<tool_call>' + f.name }}{%- for k, v in f.arguments.items() %}{{- '\\n<arg_key>' + k + '</arg_key>\\n<arg_value>' }}{{- v if v is string else v | tojson }}{{- '</arg_value>' }}{%- endfor %}{{- '\\n</tool_call>' }}",
    )}{%- endif %}{%- elif m.role == 'tool' %}{{- '<|observation|>\\n<tool_response>\\n' + m.content + '\\n</tool_response>' }}{%- else %}{{- '<|' + m.role + '|>\\n' + m.content }}{%- endif %}{%- endfor %}
{%- if add_generation_prompt %}{{- '<|assistant|>' }}{%- endif %}`,
    turn: ["<|assistant|>", "<|observation|>"],
    tokens: [...CHATML_TOKENS, "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>"],
  },
  {
    name: "LongCat",
    dialect: "longcat",
    template: `{%- if tools %}{{- '# Tools' }}{%- for t in tools %}{{- t | tojson }}{%- endfor %}{{- '<longcat_tool_call>' }}{%- endif %}
{%- for m in messages %}{%- if m.role == 'assistant' %}{{- ' ASSISTANT:' }}{%- if m.reasoning_content %}{{- '<longcat_think>\\n' + m.reasoning_content + '\\n</longcat_think>\\n' }}{%- endif %}{{- m.content }}{%- if m.tool_calls %}${each(
      "{{- '<longcat_tool_call>' + f.name + '\\n' }}{%- for k, v in f.arguments.items() %}{{- '<longcat_arg_key>' + k + '</longcat_arg_key>\\n<longcat_arg_value>' }}{{- v if v is string else v | tojson }}{{- '</longcat_arg_value>\\n' }}{%- endfor %}{{- '</longcat_tool_call>\\n' }}",
    )}{%- endif %}{{- '</longcat_s>' }}{%- else %}{{- ' ' + m.role|upper + ':' + m.content }}{%- endif %}{%- endfor %}{%- if add_generation_prompt %}{{- ' ASSISTANT:' }}{%- endif %}`,
    turn: [" ASSISTANT:", "</longcat_s>"],
    tokens: ["<longcat_think>", "</longcat_think>", "<longcat_tool_call>", "</longcat_tool_call>"],
  },
  {
    name: "MiniMax M2",
    dialect: "minimax",
    template: `{%- if tools %}{{- ']~!b[]~b]system\\n<tools>' }}{%- for t in tools %}{{- '\\n<tool>' }}{{- t.function | tojson }}{{- '</tool>' }}{%- endfor %}{{- '</tools>\\n<minimax:tool_call>…[e~[\\n' }}{%- endif %}
{%- for m in messages %}{%- if m.role == 'assistant' %}{{- ']~b]ai\\n' }}{%- if m.reasoning_content %}{{- '<think>\\n' + m.reasoning_content + '\\n</think>\\n\\n' }}{%- endif %}{{- m.content }}{%- if m.tool_calls %}{{- '\\n<minimax:tool_call>\\n' }}${each(
      `{{- '<invoke name="' + f.name + '">\\n' }}{%- for k, v in f.arguments.items() %}{{- '<parameter name="' + k + '">' }}{{- v if v is string else v | tojson }}{{- '</parameter>\\n' }}{%- endfor %}{{- '</invoke>\\n' }}`,
    )}{{- '</minimax:tool_call>' }}{%- endif %}{{- '[e~[\\n' }}{%- else %}{{- ']~b]' + m.role + '\\n' + m.content + '[e~[\\n' }}{%- endif %}{%- endfor %}{%- if add_generation_prompt %}{{- ']~b]ai\\n<think>\\n' }}{%- endif %}`,
    turn: ["]~b]ai\n", "[e~[\n"],
    tokens: ["<think>", "</think>", "<minimax:tool_call>", "</minimax:tool_call>"],
  },
  {
    name: "DeepSeek V3",
    dialect: "deepseek-v3",
    template: `{{- '<｜begin▁of▁sentence｜>' }}{%- for m in messages %}{%- if m.role == 'user' %}{{- '<｜User｜>' + m.content }}{%- elif m.role == 'assistant' %}{{- '<｜Assistant｜>' + m.content }}{%- if m.tool_calls %}{{- '<｜tool▁calls▁begin｜>' }}${each(
      "{{- '<｜tool▁call▁begin｜>' + c.type + '<｜tool▁sep｜>' + f.name + '\\n```json\\n' }}{{- f.arguments | tojson }}{{- '\\n```<｜tool▁call▁end｜>' }}",
      "\\n",
    )}{{- '<｜tool▁calls▁end｜>' }}{%- endif %}{{- '<｜end▁of▁sentence｜>' }}{%- elif m.role == 'tool' %}{{- '<｜tool▁outputs▁begin｜><｜tool▁output▁begin｜>' + m.content + '<｜tool▁output▁end｜><｜tool▁outputs▁end｜>' }}{%- else %}{{- m.content }}{%- endif %}{%- endfor %}{%- if add_generation_prompt %}{{- '<｜Assistant｜>' }}{%- endif %}`,
    turn: ["<｜Assistant｜>", "<｜end▁of▁sentence｜>"],
    tokens: [
      "<｜tool▁calls▁begin｜>",
      "<｜tool▁calls▁end｜>",
      "<｜tool▁call▁begin｜>",
      "<｜tool▁call▁end｜>",
      "<｜tool▁sep｜>",
    ],
    lacks: ["reasoning"],
  },
  {
    name: "DeepSeek V3.1",
    dialect: "deepseek-v3.1",
    template: `{{- '<｜begin▁of▁sentence｜>' }}{%- for m in messages %}{%- if m.role == 'user' %}{{- '<｜User｜>' + m.content }}{%- elif m.role == 'assistant' %}{{- '<｜Assistant｜></think>' + m.content }}{%- if m.tool_calls %}{{- '<｜tool▁calls▁begin｜>' }}${each(
      "{{- '<｜tool▁call▁begin｜>' + f.name + '<｜tool▁sep｜>' }}{{- f.arguments | tojson }}{{- '<｜tool▁call▁end｜>' }}",
    )}{{- '<｜tool▁calls▁end｜>' }}{%- endif %}{{- '<｜end▁of▁sentence｜>' }}{%- elif m.role == 'tool' %}{{- '<｜tool▁output▁begin｜>' + m.content + '<｜tool▁output▁end｜>' }}{%- else %}{{- m.content }}{%- endif %}{%- endfor %}{%- if add_generation_prompt %}{{- '<｜Assistant｜>' + ('<think>' if thinking else '</think>') }}{%- endif %}`,
    turn: ["<｜Assistant｜></think>", "<｜end▁of▁sentence｜>"],
    tokens: [
      "<think>",
      "</think>",
      "<｜tool▁calls▁begin｜>",
      "<｜tool▁calls▁end｜>",
      "<｜tool▁call▁begin｜>",
      "<｜tool▁call▁end｜>",
      "<｜tool▁sep｜>",
    ],
    lacks: ["reasoning"],
  },
  {
    name: "DeepSeek V3.2",
    dialect: "dsml",
    template: `{{- '<｜begin▁of▁sentence｜>' }}{%- for m in messages %}{%- if m.role == 'user' %}{{- '<｜User｜>' + m.content }}{%- elif m.role == 'assistant' %}{{- '<｜Assistant｜>' }}{%- if m.reasoning_content %}{{- '<think>' + m.reasoning_content + '</think>' }}{%- endif %}{{- m.content }}{%- if m.tool_calls %}{{- '\\n\\n<｜DSML｜function_calls>\\n' }}${each(
      `{{- '<｜DSML｜invoke name="' + f.name + '">\\n' }}{%- for k, v in f.arguments.items() %}{{- '<｜DSML｜parameter name="' + k + '" string="' + ('true' if v is string else 'false') + '">' }}{{- v if v is string else v | tojson }}{{- '</｜DSML｜parameter>\\n' }}{%- endfor %}{{- '</｜DSML｜invoke>\\n' }}`,
    )}{{- '</｜DSML｜function_calls>' }}{%- endif %}{{- '<｜end▁of▁sentence｜>' }}{%- else %}{{- m.content }}{%- endif %}{%- endfor %}{%- if add_generation_prompt %}{{- '<｜Assistant｜><think>' }}{%- endif %}`,
    turn: ["<｜Assistant｜>", "<｜end▁of▁sentence｜>"],
    tokens: ["<think>", "</think>", "｜DSML｜"],
  },
  {
    name: "Kimi K2",
    dialect: "kimi",
    template: `{%- if tools %}{{- '<|im_system|>tool_declare<|im_middle|>' }}{{- tools | tojson }}{{- '<|im_end|>' }}{%- endif %}{%- for m in messages %}{%- if m.role == 'assistant' %}{{- '<|im_assistant|>assistant<|im_middle|>' }}{%- if m.reasoning_content %}{{- '<think>' + m.reasoning_content + '</think>' }}{%- endif %}{{- m.content }}{%- if m.tool_calls %}{{- '<|tool_calls_section_begin|>' }}${each(
      "{{- '<|tool_call_begin|>' + c.id + '<|tool_call_argument_begin|>' }}{{- f.arguments | tojson }}{{- '<|tool_call_end|>' }}",
    )}{{- '<|tool_calls_section_end|>' }}{%- endif %}{{- '<|im_end|>' }}{%- else %}{{- '<|im_' + m.role + '|>' + m.role + '<|im_middle|>' + m.content + '<|im_end|>' }}{%- endif %}{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_assistant|>assistant<|im_middle|>' }}{%- endif %}`,
    turn: ["<|im_assistant|>assistant<|im_middle|>", "<|im_end|>"],
    tokens: [
      "<think>",
      "</think>",
      "<|tool_calls_section_begin|>",
      "<|tool_calls_section_end|>",
      "<|tool_call_begin|>",
      "<|tool_call_argument_begin|>",
      "<|tool_call_end|>",
    ],
  },
  {
    name: "Mistral 7B v0.3",
    dialect: "mistral-list",
    template: `{{- '<s>' }}{%- for m in messages %}{%- if m.role == 'user' %}{%- if tools %}{{- '[AVAILABLE_TOOLS]' }}{{- tools | tojson }}{{- '[/AVAILABLE_TOOLS]' }}{%- endif %}{{- '[INST] ' + m.content + '[/INST]' }}{%- elif m.tool_calls %}{{- '[TOOL_CALLS][' }}${each(
      `{{- '{"name": "' + f.name + '", "arguments": ' }}{{- f.arguments | tojson }}{{- ', "id": "' + c.id + '"}' }}`,
      ", ",
    )}{{- ']</s>' }}{%- elif m.role == 'assistant' %}{{- ' ' + m.content + '</s>' }}{%- elif m.role == 'tool' %}{{- '[TOOL_RESULTS]' + m.content + '[/TOOL_RESULTS]' }}{%- endif %}{%- endfor %}`,
    turn: ["[/INST]", "</s>"],
    tokens: ["[TOOL_CALLS]"],
    lacks: ["reasoning", "text"],
  },
  {
    name: "Magistral",
    dialect: "mistral",
    template: `{{- '<s>' }}{%- for m in messages %}{%- if m.role == 'user' %}{{- '[INST]' + m.content + '[/INST]' }}{%- elif m.role == 'assistant' %}{%- if m.reasoning_content %}{{- '[THINK]' + m.reasoning_content + '[/THINK]' }}{%- endif %}{{- m.content }}{%- if m.tool_calls %}${each(
      "{{- '[TOOL_CALLS]' + f.name + '[ARGS]' }}{{- f.arguments | tojson }}",
    )}{%- endif %}{{- '</s>' }}{%- elif m.role == 'tool' %}{{- '[TOOL_RESULTS]' + m.content + '[/TOOL_RESULTS]' }}{%- endif %}{%- endfor %}`,
    turn: ["[/INST]", "</s>"],
    tokens: ["[TOOL_CALLS]", "[ARGS]", "[THINK]", "[/THINK]"],
  },
  {
    name: "Llama 3.1",
    dialect: "llama",
    template: `{{- '<|begin_of_text|>' }}{%- for m in messages %}{{- '<|start_header_id|>' + m.role + '<|end_header_id|>\\n\\n' }}{%- if m.tool_calls %}{%- set f = m.tool_calls[0].function %}{{- '{"name": "' + f.name + '", "parameters": ' }}{{- f.arguments | tojson }}{{- '}<|eot_id|>' }}{%- else %}{{- m.content + '<|eot_id|>' }}{%- endif %}{%- endfor %}{#- <|python_tag|> for built-in tools #}{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}`,
    turn: ["<|start_header_id|>assistant<|end_header_id|>\n\n", "<|eot_id|>"],
    tokens: ["<|python_tag|>"],
    lacks: ["reasoning", "text"],
    calls: 1,
  },
  {
    name: "Phi-4-mini",
    dialect: "phi",
    template: `{%- for m in messages %}{{- '<|' + m.role + '|>' + m.content }}{%- if m.tool_calls %}{{- '<|tool_call|>[' }}${each(
      `{{- '{"name": "' + f.name + '", "arguments": ' }}{{- f.arguments | tojson }}{{- '}' }}`,
      ", ",
    )}{{- ']<|/tool_call|>' }}{%- endif %}{{- '<|end|>' }}{%- endfor %}{%- if add_generation_prompt %}{{- '<|assistant|>' }}{%- endif %}`,
    turn: ["<|assistant|>", "<|end|>"],
    tokens: ["<|tool_call|>", "<|/tool_call|>"],
    lacks: ["reasoning"],
  },
  {
    name: "Gemma 4",
    dialect: "gemma",
    template: `{%- macro value(v) -%}{%- if v is string %}{{- '<|"|>' + v + '<|"|>' }}{%- elif v is mapping %}{{- '{' }}{%- for k, w in v.items() %}{{- k + ':' }}{{- value(w) }}{%- if not loop.last %},{%- endif %}{%- endfor %}{{- '}' }}{%- elif v is iterable %}{{- '[' }}{%- for w in v %}{{- value(w) }}{%- if not loop.last %},{%- endif %}{%- endfor %}{{- ']' }}{%- else %}{{- v | tojson }}{%- endif %}{%- endmacro -%}
{%- for m in messages %}{{- '<|turn>' + m.role + '\\n' }}{%- if m.reasoning_content %}{{- '<|channel>thought\\n' + m.reasoning_content + '\\n<channel|>' }}{%- endif %}{{- m.content }}{%- if m.tool_calls %}${each(
      "{{- '<|tool_call>call:' + f.name }}{{- value(f.arguments) }}{{- '<tool_call|>' }}",
    )}{%- endif %}{{- '<turn|>\\n' }}{%- endfor %}{%- if add_generation_prompt %}{{- '<|turn>assistant\\n' }}{%- endif %}`,
    turn: ["<|turn>assistant\n", "<turn|>\n"],
    tokens: ["<|tool_call>", "<tool_call|>", '<|"|>', "<channel|>"],
  },
  {
    name: "gpt-oss",
    dialect: "harmony",
    template: `{%- for m in messages %}{%- if m.role == 'assistant' %}{%- if m.reasoning_content %}{{- '<|start|>assistant<|channel|>analysis<|message|>' + m.reasoning_content + '<|end|>' }}{%- endif %}{%- if m.content and m.tool_calls %}{{- '<|start|>assistant<|channel|>commentary<|message|>' + m.content + '<|end|>' }}{%- elif m.content %}{{- '<|start|>assistant<|channel|>final<|message|>' + m.content + '<|end|>' }}{%- endif %}{%- if m.tool_calls %}${each(
      "{{- '<|start|>assistant to=functions.' + f.name + '<|channel|>commentary json<|message|>' }}{{- f.arguments | tojson }}{{- '<|call|>' }}",
    )}{%- endif %}{%- elif m.role == 'tool' %}{{- '<|start|>functions.' + m.name + ' to=assistant<|channel|>commentary<|message|>' }}{{- m.content | tojson }}{{- '<|end|>' }}{%- else %}{{- '<|start|>' + m.role + '<|message|>' + m.content + '<|end|>' }}{%- endif %}{%- endfor %}{%- if add_generation_prompt %}{{- '<|start|>assistant' }}{%- endif %}`,
    turn: ["<|end|><|start|>assistant", "<|start|>user"],
    tokens: ["<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|constrain|>", "<|call|>"],
  },
  {
    name: "LFM2",
    dialect: "lfm2",
    template: `{%- macro value(v) -%}{%- if v is string or v is mapping or v is iterable %}{{- v | tojson }}{%- elif v is true %}{{- 'True' }}{%- elif v is false %}{{- 'False' }}{%- elif v is none %}{{- 'None' }}{%- else %}{{- v }}{%- endif %}{%- endmacro -%}
{%- for m in messages %}{{- '<|im_start|>' + m.role + '\\n' + m.content }}{%- if m.tool_calls %}{{- '<|tool_call_start|>[' }}${each(
      "{{- f.name + '(' }}{%- for k, v in f.arguments.items() %}{{- k + '=' }}{{- value(v) }}{%- if not loop.last %}{{- ', ' }}{%- endif %}{%- endfor %}{{- ')' }}",
      ", ",
    )}{{- ']<|tool_call_end|>' }}{%- endif %}{{- '<|im_end|>\\n' }}{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}`,
    turn: CHATML_TURN,
    tokens: ["<|tool_call_start|>", "<|tool_call_end|>"],
    lacks: ["reasoning"],
  },
  {
    name: "Seed-OSS",
    dialect: "seed",
    template: `{%- for m in messages %}{{- '<seed:bos>' + m.role + '\\n' }}{%- if m.reasoning_content %}{{- '<seed:think>' + m.reasoning_content + '</seed:think>' }}{%- endif %}{{- m.content }}{%- if m.tool_calls %}${each(
      "{{- '\\n<seed:tool_call>\\n<function=' + f.name + '>\\n' }}{%- for k, v in f.arguments.items() %}{{- '<parameter=' + k + '>' }}{{- v if v is string else v | tojson }}{{- '</parameter>\\n' }}{%- endfor %}{{- '</function>\\n</seed:tool_call>' }}",
    )}{%- endif %}{{- '<seed:eos>' }}{%- endfor %}{%- if add_generation_prompt %}{{- '<seed:bos>assistant\\n' }}{%- endif %}`,
    turn: ["<seed:bos>assistant\n", "<seed:eos>"],
    tokens: ["<seed:think>", "</seed:think>", "<seed:tool_call>", "</seed:tool_call>"],
  },
];

/** An output as a model was seen to write it, odd forms first of all, and how it is to be read. */
export interface RecordedOutput {
  readonly name: string;
  /** A family of FAMILIES. */
  readonly family: string;
  readonly output: string;
  readonly reasoning?: string;
  readonly text?: string;
  readonly calls?: readonly ExpectedCall[];
}

const weather = (city: string): ExpectedCall => ({ name: "get_weather", arguments: { city } });

export const RECORDED: readonly RecordedOutput[] = [
  {
    name: "plain text",
    family: "Qwen 3",
    output: 'It is a <b>fine</b> day: 3 < 4, {"a": [1]}.\n',
    text: 'It is a <b>fine</b> day: 3 < 4, {"a": [1]}.\n',
  },
  {
    name: "thoughts, then text",
    family: "Qwen 3",
    output: "<think>\nHm, easy.\n\n</think>\n\nParis.",
    reasoning: "Hm, easy.",
    text: "Paris.",
  },
  {
    name: "empty thoughts",
    family: "Qwen 3",
    output: "<think>\n\n</think>\n\nParis.",
    text: "Paris.",
  },
  {
    name: "arguments before the name",
    family: "Qwen 3",
    output: '<tool_call>\n{"arguments": {"city": "Rome"}, "name": "get_weather"}\n</tool_call>',
    calls: [weather("Rome")],
  },
  {
    name: "arguments as a string",
    family: "Qwen 3",
    output:
      '<tool_call>{"name": "get_weather", "arguments": "{\\"city\\": \\"Rome\\"}"}</tool_call>',
    calls: [weather("Rome")],
  },
  {
    name: "no arguments",
    family: "Qwen 3",
    output: '<tool_call>\n{"name": "now"}\n</tool_call>',
    calls: [{ name: "now", arguments: {} }],
  },
  {
    name: "a brace too few and a line feed within a string",
    family: "Qwen 3",
    output: '<tool_call>\n{"name": "get_weather", "arguments": {"city": "New\nYork"}\n</tool_call>',
    calls: [weather("New\nYork")],
  },
  {
    name: "a brace too many",
    family: "Qwen 3",
    output: '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Rome"}}}\n</tool_call>',
    calls: [weather("Rome")],
  },
  {
    name: "no end marker",
    family: "Qwen 3",
    output: 'Let me see.\n<tool_call>\n{"name": "get_weather", "arguments": {"city": "Rome"}}',
    text: "Let me see.",
    calls: [weather("Rome")],
  },
  {
    name: "text between and after calls",
    family: "Qwen 3",
    output:
      'One: <tool_call>\n{"name": "get_weather", "arguments": {"city": "Rome"}}\n</tool_call>\nTwo: <tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>\nDone.',
    text: "One:Two:Done.",
    calls: [weather("Rome"), { name: "now", arguments: {} }],
  },
  {
    name: "the end marker within a string",
    family: "Qwen 3",
    output:
      '<tool_call>\n{"name": "write_file", "arguments": {"path": "a", "content": "see </tool_call> and <tool_call>"}}\n</tool_call>',
    calls: [
      {
        name: "write_file",
        arguments: { path: "a", content: "see </tool_call> and <tool_call>" },
      },
    ],
  },
  {
    name: "broken JSON is text",
    family: "Qwen 3",
    output: 'So: <tool_call>\n{"name": "get_weather", "arguments": {city: Rome}}\n</tool_call>',
    text: 'So: <tool_call>\n{"name": "get_weather", "arguments": {city: Rome}}\n</tool_call>',
  },
  {
    name: "an unknown tool is text",
    family: "Qwen 3",
    output: '<tool_call>\n{"name": "launch", "arguments": {}}\n</tool_call>',
    text: '<tool_call>\n{"name": "launch", "arguments": {}}\n</tool_call>',
  },
  {
    name: "arguments that are no object are text",
    family: "Qwen 3",
    output: '<tool_call>\n{"name": "now", "arguments": [1]}\n</tool_call>',
    text: '<tool_call>\n{"name": "now", "arguments": [1]}\n</tool_call>',
  },
  {
    name: "a call behind a broken one",
    family: "Qwen 3",
    output:
      '<tool_call>\nhm <tool_call>\n{"name": "get_weather", "arguments": {"city": "Rome"}}\n</tool_call>',
    text: "<tool_call>\nhm",
    calls: [weather("Rome")],
  },
  {
    name: "a call within thoughts that were not ended",
    family: "Qwen 3",
    output: '<think>\nI call it.\n<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>',
    reasoning: "I call it.",
    calls: [{ name: "now", arguments: {} }],
  },
  {
    name: "a marker in the middle of a text is a word",
    family: "Qwen 3",
    output: "Write <think> and </think> around it.",
    text: "Write <think> and </think> around it.",
  },
  {
    name: "a call without its first tag",
    family: "Qwen3-Coder",
    output:
      "<function=get_weather>\n<parameter=city>\nRome\n</parameter>\n</function>\n</tool_call>",
    calls: [weather("Rome")],
  },
  {
    name: "an end tag within a value",
    family: "Qwen3-Coder",
    output:
      "<tool_call>\n<function=write_file>\n<parameter=path>\na.xml\n</parameter>\n<parameter=content>\n<p></parameter> </p>\n\n</parameter>\n</function>\n</tool_call>",
    calls: [
      { name: "write_file", arguments: { path: "a.xml", content: "<p></parameter> </p>\n" } },
    ],
  },
  {
    name: "values by their schema",
    family: "Qwen3-Coder",
    output:
      "<tool_call>\n<function=get_weather>\n<parameter=city>\n123\n</parameter>\n<parameter=days>\n2\n</parameter>\n<parameter=detailed>\nTrue\n</parameter>\n</function>\n</tool_call>",
    calls: [{ name: "get_weather", arguments: { city: "123", days: 2, detailed: true } }],
  },
  {
    name: "no parameters",
    family: "GLM 4.5",
    output: "\n<tool_call>now\n</tool_call>",
    calls: [{ name: "now", arguments: {} }],
  },
  {
    name: "JSON that is no call",
    family: "Llama 3.1",
    output: '{"name": "Rome", "country": "Italy"}',
    text: '{"name": "Rome", "country": "Italy"}',
  },
  {
    name: "two calls with a semicolon",
    family: "Llama 3.1",
    output:
      '<|python_tag|>{"name": "get_weather", "parameters": {"city": "Rome"}}; {"name": "now", "parameters": {}}',
    calls: [weather("Rome"), { name: "now", arguments: {} }],
  },
  {
    name: "a list of Python calls",
    family: "Llama 3.1",
    output: "[get_weather(city='Rome', days=-1, detailed=False), now()]",
    calls: [
      { name: "get_weather", arguments: { city: "Rome", days: -1, detailed: false } },
      { name: "now", arguments: {} },
    ],
  },
  {
    name: "Python strings",
    family: "LFM2",
    output:
      '<|tool_call_start|>[write_file(path=\'it\\\'s\', content="""a\n"b" \\u00e9\\x41""", tags=(\'x\', "y",), options={\'k\': None})]<|tool_call_end|>Done.',
    text: "Done.",
    calls: [
      {
        name: "write_file",
        arguments: { path: "it's", content: 'a\n"b" éA', tags: ["x", "y"], options: { k: null } },
      },
    ],
  },
  {
    name: "a list within brackets",
    family: "Mistral 7B v0.3",
    output:
      '[TOOL_CALLS] [{"name": "get_weather", "arguments": {"city": "Rome"}, "id": "VvvODy9mT"}]',
    calls: [weather("Rome")],
  },
  {
    name: "a call with its id",
    family: "Magistral",
    output: 'Sure.[TOOL_CALLS]get_weather[CALL_ID]abcdefghi[ARGS]{"city": "Rome"}',
    text: "Sure.",
    calls: [weather("Rome")],
  },
  {
    name: "thoughts, a preamble and a call",
    family: "gpt-oss",
    output:
      '<|channel|>analysis<|message|>Need weather.<|end|><|start|>assistant<|channel|>commentary<|message|>Looking.<|end|><|start|>assistant<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>{"city":"Rome"}',
    reasoning: "Need weather.",
    text: "Looking.",
    calls: [weather("Rome")],
  },
  {
    name: "thoughts and a final answer",
    family: "gpt-oss",
    output:
      "<|channel|>analysis<|message|>Easy.<|end|><|start|>assistant<|channel|>final<|message|>Paris.",
    reasoning: "Easy.",
    text: "Paris.",
  },
  {
    name: "bare words and nested values",
    family: "Gemma 4",
    output:
      '<|tool_call>call:write_file{path:<|"|>a,b}<|"|>,content:plain,options:{a:[1,{b:null}],c:<|"|><|"|>}}<tool_call|>',
    calls: [
      {
        name: "write_file",
        arguments: { path: "a,b}", content: "plain", options: { a: [1, { b: null }], c: "" } },
      },
    ],
  },
  {
    name: "two calls in a section",
    family: "Kimi K2",
    output:
      '<|tool_calls_section_begin|><|tool_call_begin|>functions.get_weather:0<|tool_call_argument_begin|>{"city": "Rome"}<|tool_call_end|><|tool_call_begin|>functions.now:1<|tool_call_argument_begin|>{}<|tool_call_end|><|tool_calls_section_end|>',
    calls: [weather("Rome"), { name: "now", arguments: {} }],
  },
];

/** The assistant's turn as the family's template writes it. */
export function renderedTurn(family: Family): { output: string; calls: readonly ExpectedCall[] } {
  const calls = TURN.calls.slice(0, family.calls ?? TURN.calls.length);
  const lacks = family.lacks ?? [];
  const template = new ChatTemplate("m", { default: family.template, toolUse: null }, {});
  const none = { special: new TokenTrie([]), all: new TokenTrie([]) };
  const said = (text: string) => [{ kind: "text" as const, text }];
  const rendered = template.render(
    toTemplateInput(
      {
        messages: [
          { role: "user", parts: said("Weather, please.") },
          {
            role: "assistant",
            parts: said(lacks.includes("text") ? "" : TURN.text),
            reasoning: lacks.includes("reasoning") ? undefined : TURN.reasoning,
            toolCalls: calls.map((call, i) => ({
              id: `functions.${call.name}:${i}`,
              name: call.name,
              arguments: JSON.stringify(call.arguments),
            })),
          },
          { role: family.turn[1] === "<|observation|>" ? "tool" : "user", parts: said("ok") },
        ],
        tools: TOOLS,
        templateKwargs: {},
      },
      none,
    ),
  );
  const [before, after] = family.turn;
  const begin = rendered.indexOf(before) + before.length;
  const end = rendered.indexOf(after, begin);
  return { output: rendered.slice(begin, end === -1 ? undefined : end), calls };
}

/** What is to be read from it, beside the calls. */
export const expectedTurn = (family: Family) => {
  const lacks = family.lacks ?? [];
  return {
    text: lacks.includes("text") ? "" : TURN.text,
    reasoning: lacks.includes("reasoning") ? "" : TURN.reasoning,
  };
};
