// The API's documentation: Swagger UI over /openapi.json. No validator: it would send the address of this server away.

SwaggerUIBundle({ url: "openapi.json", dom_id: "#api", validatorUrl: null, deepLinking: true });
