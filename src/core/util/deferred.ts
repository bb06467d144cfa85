/** A promise with its two ends in the open. */
export type Deferred<T> = PromiseWithResolvers<T>;

export function deferred<T>(): Deferred<T> {
  return Promise.withResolvers<T>();
}
