/** JSON schemas that people send, and some that only a tester would; every one can be enforced strictly. */
type Schema = boolean | Readonly<Record<string, unknown>>;

const object = (
  properties: Record<string, Schema>,
  more: Record<string, unknown> = {},
): Schema => ({
  type: "object",
  properties,
  required: Object.keys(properties),
  additionalProperties: false,
  ...more,
});
const text = (more: Record<string, unknown> = {}): Schema => ({ type: "string", ...more });
const list = (items: Schema, more: Record<string, unknown> = {}): Schema => ({
  type: "array",
  items,
  ...more,
});
/** Short strings, so that a model without sense comes to an end. */
const word = text({ maxLength: 12 });
const flag: Schema = { type: "boolean" };
const digit: Schema = { type: "integer", minimum: 0, maximum: 9 };

const SCALARS: readonly Schema[] = [
  { type: "null" },
  flag,
  { type: "integer" },
  { type: "number" },
  word,
  { type: ["integer", "null"] },
  { type: ["boolean", "null"] },
  { type: ["number", "boolean"] },
  { ...(word as object), type: ["string", "null"] },
  { const: null },
  { const: 0 },
  { const: -1.5 },
  { const: true },
  { const: "" },
  { const: 'quote " and \\ slash' },
  { const: "новый день" },
  { const: "日本語 🎉" },
  { const: { a: [1, { b: null }], "c d": "e" } },
  { const: [[], [[]], {}] },
  { enum: ["red", "green", "blue"] },
  { enum: [1, "1", 1.5, null, true] },
  { enum: ["a", "ab", "abc", "abcd"] },
  { enum: [{ x: 1 }, [1, 2], "x"] },
  { enum: ["a\nb", "tab\t", "\u0001", "\u2028"] },
  { type: "string", enum: ["one", 2, "three"] },
  { type: "integer", enum: [1, 2.5, 3] },
  { enum: ["x", "y", "z"], const: "y" },
  { type: "string", nullable: true, enum: ["p", null] },
];

const NUMBERS: readonly Schema[] = [
  { type: "integer", minimum: 0 },
  { type: "integer", maximum: 0 },
  { type: "integer", minimum: 0, maximum: 255 },
  { type: "integer", minimum: -10, maximum: 10 },
  { type: "integer", minimum: 17, maximum: 17 },
  { type: "integer", minimum: 99, maximum: 101 },
  { type: "integer", minimum: -1234, maximum: -56 },
  { type: "integer", exclusiveMinimum: 0, exclusiveMaximum: 5 },
  { type: "integer", minimum: 1.5, maximum: 3.5 },
  { type: "integer", minimum: 1000000, maximum: 1000000000000 },
  { type: "integer", minimum: 0, exclusiveMinimum: true, maximum: 10 },
  { type: "integer", multipleOf: 5 },
  { type: "integer", multipleOf: 7, minimum: 0, maximum: 100 },
  { type: "integer", multipleOf: 10, minimum: -50, maximum: 50 },
  { type: "integer", multipleOf: 0.5 },
  { type: "number", minimum: 0, maximum: 1 },
  { type: "number", minimum: -1, maximum: 1 },
  { type: "number", exclusiveMinimum: 0, maximum: 0.5 },
  { type: "number", minimum: 0.1, maximum: 0.2 },
  { type: "number", minimum: -3.75, exclusiveMaximum: -3.5 },
  { type: "number", minimum: 98.6 },
  { type: "number", maximum: -0.001 },
  { type: "number", exclusiveMinimum: 1e3, exclusiveMaximum: 1e6 },
  { type: "number", minimum: 1e-7, maximum: 1e-6 },
  { type: "number", multipleOf: 3 },
  { minimum: 3, maximum: 8 },
];

const STRINGS: readonly Schema[] = [
  text({ maxLength: 0 }),
  text({ minLength: 1, maxLength: 1 }),
  text({ minLength: 3, maxLength: 5 }),
  text({ minLength: 10, maxLength: 40 }),
  text({ minLength: 33, maxLength: 35 }),
  text({ minLength: 50, maxLength: 60 }),
  text({ maxLength: 200 }),
  text({ pattern: "^[a-z]+$", maxLength: 8 }),
  text({ pattern: "^\\d{4}$" }),
  text({ pattern: "^\\d{3}-\\d{2}-\\d{4}$" }),
  text({ pattern: "^[A-Z]{2}\\d{6}$" }),
  text({ pattern: "^[a-f0-9]{32}$" }),
  text({ pattern: "^[a-f0-9]{40}$" }),
  text({ pattern: "^[A-Za-z]{35,40}$" }),
  text({ pattern: "^(?:foo|bar|baz)(?:-[0-9]){1,3}$" }),
  text({ pattern: "^#[0-9a-fA-F]{6}$" }),
  text({ pattern: "^\\+?[1-9]\\d{1,14}$" }),
  text({ pattern: "^v\\d+\\.\\d+\\.\\d+$", maxLength: 16 }),
  text({ pattern: "^[^a-z]{2,4}$" }),
  text({ pattern: "^.{3,6}$" }),
  text({ pattern: "^\\w+\\s\\w+$", maxLength: 12 }),
  text({ pattern: "^[а-я]{3,8}$" }),
  text({ pattern: "^\\p{Lu}\\p{Ll}{1,5}$" }),
  text({ pattern: "^[\\u4e00-\\u9fff]{1,4}$" }),
  text({ pattern: '^"[a-z]"\\\\$' }),
  text({ pattern: "^$" }),
  text({ pattern: "^a|b$", maxLength: 5 }),
  text({ pattern: "x", maxLength: 5 }),
  text({ pattern: "^(a+)+$", maxLength: 10 }),
  text({ pattern: "^(a|aa)+b$", maxLength: 9, minLength: 4 }),
  text({ pattern: "^([a-z]{2,3}, ){2,40}end$", maxLength: 60 }),
  ...[
    "date",
    "time",
    "date-time",
    "duration",
    "email",
    "hostname",
    "ipv4",
    "ipv6",
    "uuid",
    "json-pointer",
    "regex",
  ].map((format) => text({ format, maxLength: 60 })),
  text({ format: "uri", maxLength: 60 }),
  text({ format: "uri-reference", maxLength: 40 }),
  text({ format: "a-format-of-ours", maxLength: 5 }),
  { minLength: 2, maxLength: 4 },
];

const ARRAYS: readonly Schema[] = [
  list(flag),
  list(digit),
  list(digit, { maxItems: 0 }),
  list(digit, { minItems: 1, maxItems: 1 }),
  list(digit, { minItems: 2, maxItems: 4 }),
  list(digit, { minItems: 40 }),
  list(digit, { minItems: 33, maxItems: 50 }),
  list(word, { maxItems: 3 }),
  list(list(digit, { maxItems: 2 }), { maxItems: 3 }),
  list(object({ id: digit, ok: flag }), { minItems: 1, maxItems: 3 }),
  list({ enum: ["a", "b", "c", "d"] }, { uniqueItems: true }),
  list({ enum: [1, 2, 3] }, { uniqueItems: true, minItems: 2 }),
  list(digit, { uniqueItems: true, maxItems: 1 }),
  { type: "array", prefixItems: [digit, word, flag], items: false },
  { type: "array", prefixItems: [digit, word], minItems: 2, maxItems: 2 },
  { type: "array", prefixItems: [digit], items: flag, maxItems: 4 },
  { type: "array", items: [digit, flag], additionalItems: false },
  { type: "array", items: [digit], additionalItems: word, minItems: 3, maxItems: 3 },
  { type: "array", maxItems: 2, items: { type: ["null", "boolean"] } },
  { items: digit, maxItems: 5 },
];

const OBJECTS: readonly Schema[] = [
  object({}),
  object({ a: flag }),
  object({ name: word, age: { type: "integer", minimum: 0, maximum: 150 }, admin: flag }),
  object({ a: flag, b: flag, c: flag }, { required: [] }),
  object({ a: flag, b: digit, c: word }, { required: ["b"] }),
  object({ a: flag, b: digit, c: word }, { required: ["c"] }),
  object({ a: flag, b: digit, c: flag }, { required: [], minProperties: 2 }),
  object({ a: flag, b: digit, c: flag }, { required: [], maxProperties: 1 }),
  object(
    { a: flag, b: digit, c: flag, d: flag },
    { required: ["b"], minProperties: 2, maxProperties: 3 },
  ),
  object({ "with space": flag, 'quo"te': digit, "back\\slash": flag, "": digit }),
  object({ имя: word, 名前: flag, "🎈": digit }),
  object({ a: object({ b: object({ c: object({ d: digit }) }) }) }),
  object({ list: list(object({ tags: list(word, { maxItems: 2 }) }), { maxItems: 2 }) }),
  { type: "object", properties: { a: digit }, required: ["a"] },
  {
    type: "object",
    required: ["x"],
    properties: {},
    additionalProperties: digit,
    maxProperties: 2,
  },
  { type: "object", additionalProperties: digit, maxProperties: 3 },
  { type: "object", additionalProperties: digit, minProperties: 1, maxProperties: 40 },
  { type: "object", properties: { a: flag }, additionalProperties: digit, maxProperties: 3 },
  {
    type: "object",
    properties: { ab: flag, abc: flag },
    required: ["ab"],
    additionalProperties: digit,
    maxProperties: 4,
  },
  {
    type: "object",
    patternProperties: { "^x-[a-z]{1,3}$": digit },
    additionalProperties: false,
    maxProperties: 3,
  },
  {
    type: "object",
    properties: { id: digit },
    patternProperties: { "^n\\d$": flag },
    required: ["id"],
    additionalProperties: false,
    maxProperties: 3,
  },
  {
    type: "object",
    propertyNames: { enum: ["p", "q", "r"] },
    additionalProperties: digit,
    maxProperties: 3,
  },
  {
    type: "object",
    propertyNames: { pattern: "^[a-z]{1,4}$" },
    additionalProperties: flag,
    maxProperties: 3,
  },
  object(
    { card: digit, address: flag },
    { required: [], dependentRequired: { card: ["address"] } },
  ),
  {
    type: "object",
    properties: { a: digit, b: flag },
    required: ["a"],
    unevaluatedProperties: false,
  },
  { properties: { kind: { const: "only" } }, required: ["kind"] },
  object({ deprecated: flag, title: word, type: digit, properties: flag, $ref: digit }),
  object(Object.fromEntries(Array.from({ length: 40 }, (_, i) => [`field${i}`, flag]))),
];

const REFS: readonly Schema[] = [
  { $defs: { d: digit }, $ref: "#/$defs/d" },
  { definitions: { d: digit }, type: "array", items: { $ref: "#/definitions/d" }, maxItems: 3 },
  { $defs: { "a/b~c": flag }, properties: { x: { $ref: "#/$defs/a~1b~0c" } }, required: ["x"] },
  {
    $defs: { "with space": flag },
    properties: { x: { $ref: "#/$defs/with%20space" } },
    required: ["x"],
  },
  {
    $defs: { d: { $anchor: "digit", ...(digit as object) } },
    items: { $ref: "#digit" },
    maxItems: 2,
  },
  {
    $defs: {
      node: object({ value: digit, next: { anyOf: [{ $ref: "#/$defs/node" }, { type: "null" }] } }),
    },
    $ref: "#/$defs/node",
  },
  {
    $defs: {
      tree: object({ leaf: digit, children: list({ $ref: "#/$defs/tree" }, { maxItems: 2 }) }),
    },
    $ref: "#/$defs/tree",
  },
  {
    type: "object",
    properties: { self: { $ref: "#" }, end: flag },
    required: ["end"],
    additionalProperties: false,
  },
  {
    $defs: {
      even: object({ odd: { anyOf: [{ $ref: "#/$defs/odd" }, { type: "null" }] } }),
      odd: object({ even: { anyOf: [{ $ref: "#/$defs/even" }, { type: "null" }] } }),
    },
    $ref: "#/$defs/even",
  },
  {
    $defs: { base: { type: "integer", minimum: 0 } },
    allOf: [{ $ref: "#/$defs/base" }, { maximum: 7 }],
  },
  {
    $defs: { s: word },
    type: "object",
    properties: { a: { $ref: "#/$defs/s", description: "beside" } },
    required: ["a"],
  },
];

const CHOICES: readonly Schema[] = [
  { anyOf: [digit, flag] },
  { anyOf: [word, { type: "null" }] },
  { anyOf: [object({ a: digit }), object({ b: flag }), object({ a: flag, b: digit })] },
  { anyOf: [{ const: "x" }, { const: "y" }, { enum: [1, 2] }] },
  {
    type: "object",
    properties: { a: digit, b: digit },
    anyOf: [{ required: ["a"] }, { required: ["b"] }],
  },
  {
    type: "object",
    properties: { a: digit },
    required: ["a"],
    anyOf: [
      { properties: { b: flag }, required: ["b"] },
      { properties: { c: digit }, required: ["c"] },
    ],
  },
  { anyOf: [{ anyOf: [digit, { const: "in" }] }, { anyOf: [flag, { type: "null" }] }] },
  { oneOf: [{ type: "integer" }, word] },
  { oneOf: [{ const: 1 }, { const: 2 }] },
  {
    oneOf: [
      { type: "integer", maximum: -1 },
      { type: "integer", minimum: 1, maximum: 9 },
    ],
  },
  {
    oneOf: [
      object({ kind: { const: "circle" }, r: digit }),
      object({ kind: { const: "box" }, w: digit, h: digit }),
      object({
        kind: { enum: ["line", "ray"] },
        points: list(digit, { minItems: 2, maxItems: 2 }),
      }),
    ],
    discriminator: { propertyName: "kind" },
  },
  { oneOf: [object({ a: digit }), object({ b: digit })] },
  {
    allOf: [
      { type: "object", properties: { a: digit }, required: ["a"] },
      { properties: { b: flag }, required: ["b"] },
    ],
  },
  { allOf: [{ type: "string", minLength: 2 }, { maxLength: 4 }] },
  { allOf: [{ enum: [1, 2, 3] }, { enum: [2, 3, 4] }] },
  {
    allOf: [
      { type: ["integer", "string"] },
      { type: ["integer", "null"] },
      { minimum: 1, maximum: 3 },
    ],
  },
  { type: ["string", "integer"], not: { type: "string" }, minimum: 0, maximum: 4 },
  {
    allOf: [
      object({ a: { type: "integer" } }),
      { type: "object", properties: { a: { minimum: 3, maximum: 5 } } },
    ],
  },
];

const PLACES: readonly Schema[] = [
  // As pydantic and zod write them.
  {
    $schema: "https://json-schema.org/draft/2020-12/schema",
    title: "Event",
    type: "object",
    properties: {
      name: { title: "Name", type: "string", maxLength: 10 },
      date: { format: "date", title: "Date", type: "string" },
      participants: {
        items: { type: "string", maxLength: 8 },
        maxItems: 3,
        title: "Participants",
        type: "array",
      },
      place: { anyOf: [{ $ref: "#/$defs/Place" }, { type: "null" }], default: null },
    },
    required: ["name", "date", "participants"],
    $defs: {
      Place: {
        title: "Place",
        type: "object",
        properties: {
          lat: { type: "number", minimum: -90, maximum: 90 },
          lon: { type: "number", minimum: -180, maximum: 180 },
        },
        required: ["lat", "lon"],
      },
    },
  },
  object({
    steps: list(object({ explanation: word, output: word }), { maxItems: 3 }),
    final_answer: word,
  }),
  object({
    sentiment: { enum: ["positive", "negative", "neutral"] },
    score: { type: "number", minimum: 0, maximum: 1 },
  }),
  object({
    command: word,
    timeout: { type: "integer", minimum: 1, maximum: 600000 },
    cwd: { anyOf: [word, { type: "null" }] },
  }),
  object({
    pattern: text({ pattern: "^\\d{4}$" }),
    notes: list(text({ maxLength: 40 }), { maxItems: 2 }),
  }),
  object({
    a: {
      type: "object",
      properties: { x: list({ $ref: "#/properties/b" }, { maxItems: 2 }) },
      required: ["x"],
    },
    b: digit,
  }),
  object({
    todos: list(
      object({
        content: text({ minLength: 1, maxLength: 20 }),
        status: { enum: ["pending", "done"] },
      }),
      { maxItems: 3 },
    ),
  }),
  object({
    cell: text({ maxLength: 50 }),
    kind: { enum: ["code", "markdown"] },
    mode: { const: "replace" },
  }),
];

export const SCHEMAS: readonly Schema[] = [
  ...SCALARS,
  ...NUMBERS,
  ...STRINGS,
  ...ARRAYS,
  ...OBJECTS,
  ...REFS,
  ...CHOICES,
  ...PLACES,
];
