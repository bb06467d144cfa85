/** `npm run test:long`: tests look longer, and those that need more time or tools run, too. */
export const IS_LONG = process.env["OMLX_LONG"] === "1";

/** How much of something a test does: the second in a long run. */
export const sized = (short: number, long: number): number => (IS_LONG ? long : short);
