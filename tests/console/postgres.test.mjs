// The console on PostgreSQL.
import { screens } from "./screens.mjs";
import { postgres, serve } from "./service.mjs";

screens("PostgreSQL", async () => {
  const database = await postgres();
  const service = await serve({ flags: ["--store", database.url] });
  return {
    ...service,
    async stop() {
      await service.stop();
      await database.stop();
    },
  };
});
