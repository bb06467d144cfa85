/** The paths of the page's files, as `with { type: "file" }` imports them. */
declare module "swagger-ui-dist/*" {
  const path: string;
  export default path;
}
