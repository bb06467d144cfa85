import { Environment, Interpreter, parse, tokenize } from "@huggingface/jinja";
import { invalidRequest, OmlxError } from "#core/contract";
import type { TemplateInput } from "./conversation.ts";
import type { TemplateSources } from "./find.ts";
import { TemplateRefusal, templateGlobals } from "./globals.ts";

type Program = ReturnType<typeof parse>;

/** A model's chat templates, parsed once. */
export class ChatTemplate {
  readonly #modelId: string;
  readonly #sources: TemplateSources;
  readonly #namedTokens: Readonly<Record<string, string>>;
  readonly #now: () => Date;
  readonly #programs = new Map<string, Program>();

  /** @param namedTokens variables like bos_token */
  constructor(
    modelId: string,
    sources: TemplateSources,
    namedTokens: Readonly<Record<string, string>>,
    now: () => Date = () => new Date(),
  ) {
    this.#modelId = modelId;
    this.#sources = sources;
    this.#namedTokens = namedTokens;
    this.#now = now;
  }

  /**
   * The prompt's text, with the input's markers still in it.
   *
   * @throws {OmlxError} invalid_request with the template's own words
   */
  render(input: TemplateInput): string {
    const globals = templateGlobals(this.#now);
    for (const name of Object.keys(input.kwargs)) {
      if (Object.hasOwn(globals, name) || RESERVED.has(name)) {
        throw invalidRequest(
          `Cannot set "${name}": the chat template's own`,
          `chat_template_kwargs.${name}`,
        );
      }
    }
    const variables: Record<string, unknown> = {
      ...globals,
      ...this.#namedTokens,
      ...input.kwargs,
      messages: input.messages,
      tools: input.tools,
      documents: input.kwargs["documents"] ?? null,
      add_generation_prompt: input.cut === null,
    };
    try {
      const source = input.tools === null ? this.#sources.default : this.#sources.toolUse;
      const program = this.#programOf(source ?? this.#sources.default);
      const environment = new Environment();
      for (const [name, value] of Object.entries(variables)) environment.set(name, value);
      const printed = String(new Interpreter(environment).run(program).value);
      const text = printed.replaceAll(escapeOf(input.marker), input.marker);
      return input.cut === null ? text : this.#cutAt(text, input.cut);
    } catch (error) {
      if (error instanceof OmlxError) throw error;
      const reason = error instanceof Error ? error.message : String(error);
      const what =
        error instanceof TemplateRefusal
          ? `The chat template of "${this.#modelId}" refuses the messages: ${reason}`
          : `Cannot render the chat template of "${this.#modelId}": ${reason}`;
      throw invalidRequest(what, "messages");
    }
  }

  #programOf(source: string): Program {
    let program = this.#programs.get(source);
    if (program === undefined) {
      program = parse(tokenize(plainBlocks(source), { lstrip_blocks: true, trim_blocks: true }));
      this.#programs.set(source, program);
    }
    return program;
  }

  #cutAt(text: string, cut: string): string {
    const at = text.lastIndexOf(cut);
    if (at === -1) {
      throw invalidRequest(
        `The chat template of "${this.#modelId}" leaves the last message out, so it cannot be continued`,
        "messages",
      );
    }
    return text.slice(0, at);
  }
}

const RESERVED: ReadonlySet<string> = new Set([
  "messages",
  "tools",
  "add_generation_prompt",
  "namespace",
]);

/** The character as JSON in ASCII spells it. */
function escapeOf(character: string): string {
  return `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`;
}

/** {% generation %} only marks what an assistant said, for training; as a plain block it prints the same. */
function plainBlocks(source: string): string {
  return source
    .replace(/\{%(-?)\s*generation\s*(-?)%\}/g, "{%$1 if true $2%}")
    .replace(/\{%(-?)\s*endgeneration\s*(-?)%\}/g, "{%$1 endif $2%}");
}
