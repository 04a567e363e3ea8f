// The console on the embedded store.
import { screens } from "./screens.mjs";
import { serve } from "./service.mjs";

screens("embedded", () => serve());
