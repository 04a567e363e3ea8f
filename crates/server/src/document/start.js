// Shows the document that this same service answers to programs. Nothing else is loaded.
SwaggerUIBundle({
  url: "/",
  dom_id: "#page",
  deepLinking: true,
  defaultModelsExpandDepth: 0,
  displayRequestDuration: true,
  tryItOutEnabled: true,
  validatorUrl: null,
});
