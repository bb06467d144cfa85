/** Bytes that a server may send without a line's end. */
const MAX_LINE = 32 * 2 ** 20;

/** fetch() whose answers end with an error where one line, a JSON text or an event, grows beyond all bounds. */
export async function boundedFetch(url: string | URL, init?: RequestInit): Promise<Response> {
  const response = await fetch(url, init);
  if (!response.body) return response;
  let length = 0;
  const bounded = response.body.pipeThrough(
    new TransformStream<Uint8Array, Uint8Array>({
      transform(chunk, controller) {
        const end = chunk.lastIndexOf(10);
        length = end === -1 ? length + chunk.length : chunk.length - end - 1;
        if (length > MAX_LINE) controller.error(new Error("the server's answer is too large"));
        else controller.enqueue(chunk);
      },
    }),
  );
  const { status, statusText, headers } = response;
  return new Response(bounded, { status, statusText, headers });
}
