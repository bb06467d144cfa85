import type { z } from "zod";
import { invalidRequest } from "#core/contract";

type Path = readonly PropertyKey[];

/** ["messages", 2, "content"] as a client writes it: "messages[2].content". */
export function pathText(path: Path): string {
  return path
    .map((key) => (typeof key === "number" ? `[${key}]` : `.${String(key)}`))
    .join("")
    .replace(/^\./, "")
    .slice(0, 200);
}

type Issue = z.core.$ZodIssue;

/** Of a union's branches the one that got furthest into the value says best what is wrong. */
function innermost(issue: Issue, base: Path): { path: Path; message: string } {
  const path = [...base, ...issue.path];
  if (issue.code !== "invalid_union" || issue.errors.length === 0) {
    return { path, message: issue.message.replace(/^Invalid input: /, "") };
  }
  // The branch that takes the list, but not its length, is the one that was meant.
  const sized = issue.errors.find(
    ([first]) => first?.path.length === 0 && /^too_(?:big|small)$/.test(first.code),
  )?.[0];
  if (sized) return innermost(sized, path);
  const firsts = issue.errors.flatMap(([first]) => (first ? [innermost(first, path)] : []));
  const deepest = firsts.reduce((best, next) =>
    next.path.length > best.path.length ? next : best,
  );
  if (deepest.path.length > path.length) return deepest;
  return { path, message: [...new Set(firsts.map((first) => first.message))].join("; ") };
}

/**
 * @returns the body as the schema reads it
 * @throws {OmlxError} invalid_request; `param` is the path of the first field at fault
 */
export function validate<T extends z.ZodType>(schema: T, body: unknown): z.output<T> {
  const result = schema.safeParse(body);
  if (result.success) return result.data;
  const [issue] = result.error.issues;
  if (!issue) throw invalidRequest("Invalid request body");
  const { path, message } = innermost(issue, []);
  const param = pathText(path);
  throw param === ""
    ? invalidRequest(`Invalid request body: ${message}`)
    : invalidRequest(`Invalid value for "${param}": ${message}`, param);
}
