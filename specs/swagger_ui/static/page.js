// Starts Swagger UI over the documents in the page's data-documents: [{name, url}, ...].
const root = document.getElementById("swagger-ui")
const documents = JSON.parse(root.dataset.documents)

// Swagger UI switches to dark colours only after it has loaded. This avoids a flash of white.
if (matchMedia("(prefers-color-scheme: dark)").matches) document.documentElement.classList.add("dark-mode")
document.documentElement.classList.toggle("one-document", documents.length === 1)

// Keeps the API key when the user chooses another document. Swagger UI's own way is the browser's storage, where any
// page that is later served on this port could read the key.
const keepKey = {
  statePlugins: {
    auth: {
      wrapActions: {
        restoreAuthorization: (original) => (payload) =>
          Object.keys(payload.authorized).length ? original(payload) : { type: "key_kept" },
      },
    },
  },
}

SwaggerUIBundle({
  dom_id: "#swagger-ui",
  urls: documents,
  "urls.primaryName": documents[0].name,
  presets: [SwaggerUIBundle.presets.apis, SwaggerUIStandalonePreset],
  plugins: [SwaggerUIBundle.plugins.DownloadUrl, keepKey],
  layout: "StandaloneLayout",
  // By default, Swagger UI sends the URL of each document that is not on localhost to a validator on the internet.
  validatorUrl: null,
  deepLinking: true,
  displayRequestDuration: true,
})
