import { afterEach, expect, test } from "bun:test";
import { existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { HttpError } from "../../../../src/front/api/error-handler.ts";
import { ResponseStore } from "../../../../src/front/api/openai/responses/store.ts";

const folders: string[] = [];
const folder = () => {
  const path = mkdtempSync(join(tmpdir(), "omlx-responses-"));
  folders.push(path);
  return path;
};
afterEach(() => {
  for (const path of folders.splice(0)) rmSync(path, { recursive: true, force: true });
});

const idOf = (n: number) => `resp_${n.toString(16).padStart(32, "0")}`;
const stored = (n: number, previous: number | null = null) => ({
  response: {
    id: idOf(n),
    status: "completed",
    output: [{ type: "message", id: `msg_out${n}`, role: "assistant", content: [] }],
    previous_response_id: previous === null ? null : idOf(previous),
  },
  input: [{ type: "message", id: `msg_in${n}`, role: "user", content: "q" }],
});
const statusOf = (promise: Promise<unknown>) =>
  promise.then(
    () => 200,
    (error: unknown) => (error instanceof HttpError ? error.status : 0),
  );

test("ResponseStore keeps responses over a restart and forgets deleted ones", async () => {
  const path = folder();
  const store = new ResponseStore(path);
  await store.put(idOf(1), stored(1));
  await store.put(idOf(2), stored(2, 1));
  expect(await store.delete(idOf(3))).toBe(false);
  const again = new ResponseStore(path);
  expect((await again.history(idOf(2))).map((item) => item.id)).toEqual([
    "msg_in1",
    "msg_out1",
    "msg_in2",
    "msg_out2",
  ]);
  expect((await again.item("msg_out1"))?.id).toBe("msg_out1");
  expect(await again.delete(idOf(1))).toBe(true);
  expect(await statusOf(again.history(idOf(2)))).toBe(409);
  expect(await statusOf(again.history(idOf(1)))).toBe(404);
  expect(existsSync(join(path, `${idOf(1)}.json`))).toBe(false);
});

test("ResponseStore stays within its limits, the least used goes first", async () => {
  const path = folder();
  const store = new ResponseStore(path, { entries: 3, bytes: 2 ** 20 });
  for (const n of [1, 2, 3]) await store.put(idOf(n), stored(n));
  await store.get(idOf(1));
  await store.put(idOf(4), stored(4));
  expect(await store.get(idOf(2))).toBeUndefined();
  expect(await store.get(idOf(1))).toBeDefined();
  expect(readdirSync(path)).toHaveLength(3);
  const small = new ResponseStore(path, { entries: 3, bytes: 10 });
  await small.get(idOf(1));
  expect(readdirSync(path)).toHaveLength(0);
});

test("ResponseStore keeps what it cannot write in memory, and ignores damaged and foreign files", async () => {
  const file = join(folder(), "file");
  writeFileSync(file, "");
  const store = new ResponseStore(join(file, "below"));
  await store.put(idOf(1), stored(1));
  expect((await store.get(idOf(1)))?.response.id).toBe(idOf(1));
  const path = folder();
  writeFileSync(join(path, `${idOf(5)}.json`), "{");
  writeFileSync(join(path, "notes.txt"), "mine");
  const other = new ResponseStore(path);
  expect(await other.get(idOf(5))).toBeUndefined();
  expect(await other.get("../notes")).toBeUndefined();
  expect(readdirSync(path)).toEqual(["notes.txt"]);
});

test("ResponseStore ends at a chain that bites its tail", async () => {
  const store = new ResponseStore(folder());
  await store.put(idOf(1), stored(1, 2));
  await store.put(idOf(2), stored(2, 1));
  expect(await statusOf(store.history(idOf(2)))).toBe(409);
});
