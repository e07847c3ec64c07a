// The OpenID provider of try_provider.py: oidc-provider with its own pages for sign-in and consent.
// Its settings are JSON, in the first argument. Anybody signs in as who they say they are.

import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const { port, folder, client, claims } = JSON.parse(process.argv[2]);
const { Provider } = await import(
  pathToFileURL(createRequire(`${folder}/`).resolve("oidc-provider"))
);
const issuer = `http://localhost:${port}`;
const provider = new Provider(issuer, {
  claims: {
    openid: ["sub"],
    profile: ["preferred_username"],
    email: ["email", "email_verified"],
    groups: ["groups"],
  },
  clients: [client],
  cookies: { keys: ["only-for-this-trial"] },
  features: { rpInitiatedLogout: { enabled: true } },
  findAccount: (_context, id) => ({
    accountId: id,
    claims: () => ({ sub: id, preferred_username: id, ...claims[id] }),
  }),
  pkce: { required: () => true },
});
provider.on("server_error", (_context, error) => console.error(error));
provider.listen(port, "127.0.0.1", () => console.log(`OpenID provider running on ${issuer}`));
