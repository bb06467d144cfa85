/** Kinds of fields that the bodies of every vendor have. */
import { z } from "zod";

/** Taken as it is. */
export const anything = z.unknown().optional();

/** A whole number, also written as 1.0; JSON schema calls it an integer. */
export const integer = (min: number) =>
  z.number().refine(Number.isInteger, "expected an integer").min(min).meta({ type: "integer" });

export const within = (min: number, max: number) => z.number().min(min).max(max);
