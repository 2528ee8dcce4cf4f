/// The description of the control socket, which it answers at `/openapi.json`.
enum OpenAPI {
    static let document = #"""
        {
          "openapi": "3.1.0",
          "info": {
            "title": "uffd-pager",
            "version": "1",
            "description": "Serves the memory of virtual machines. HTTP over the Unix socket of uffd-pager serve --control."
          },
          "paths": {
            "/healthz": {"get": {"summary": "Whether the program answers.", "responses": {"200": {"description": "It does."}}}},
            "/metrics": {"get": {"summary": "Metrics in Prometheus' text format.", "responses": {"200": {
              "description": "The metrics.", "content": {"text/plain": {"schema": {"type": "string"}}}}}}},
            "/openapi.json": {"get": {"summary": "This document.", "responses": {"200": {"description": "It."}}}},
            "/v1/machines": {
              "get": {"summary": "All machines.", "responses": {"200": {"description": "By name.", "content": {
                "application/json": {"schema": {"$ref": "#/components/schemas/MachineList"}}}}}},
              "post": {
                "summary": "Begins to listen for a machine.",
                "requestBody": {"required": true, "content": {
                  "application/json": {"schema": {"$ref": "#/components/schemas/Specification"}}}},
                "responses": {
                  "201": {"$ref": "#/components/responses/Machine"},
                  "400": {"$ref": "#/components/responses/Error"},
                  "409": {"$ref": "#/components/responses/Error"},
                  "422": {"$ref": "#/components/responses/Error"},
                  "429": {"$ref": "#/components/responses/Error"},
                  "503": {"$ref": "#/components/responses/Error"}
                }
              }
            },
            "/v1/machines/{name}": {
              "parameters": [{"$ref": "#/components/parameters/Name"}],
              "get": {"summary": "One machine, its sessions and statistics.", "responses": {
                "200": {"$ref": "#/components/responses/Machine"}, "404": {"$ref": "#/components/responses/Error"}}},
              "delete": {
                "summary": "Stops listening for a machine, and ends its sessions.",
                "parameters": [
                  {"name": "ending", "in": "query", "description": "What happens to memory that was not loaded.",
                    "schema": {"enum": ["load", "poison", "kill"], "default": "load"}},
                  {"$ref": "#/components/parameters/Seconds"}
                ],
                "responses": {"204": {"description": "It is removed."}, "400": {"$ref": "#/components/responses/Error"},
                  "404": {"$ref": "#/components/responses/Error"},
                  "422": {"description": "It is removed, but memory that was to be loaded is lost.", "content": {
                    "application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}},
                  "429": {"$ref": "#/components/responses/Error"}}
              }
            },
            "/v1/machines/{name}/prefetch": {
              "parameters": [{"$ref": "#/components/parameters/Name"}],
              "post": {
                "summary": "Loads the pages of a recorded working set in the background.",
                "requestBody": {"required": true, "content": {"application/json": {"schema": {
                  "type": "object", "required": ["workingSet"],
                  "properties": {"workingSet": {"type": "string", "description": "A file of the host."}}}}}},
                "responses": {"200": {"$ref": "#/components/responses/Sessions"},
                  "400": {"$ref": "#/components/responses/Error"}, "404": {"$ref": "#/components/responses/Error"},
                  "422": {"$ref": "#/components/responses/Error"}, "429": {"$ref": "#/components/responses/Error"}}
              }
            },
            "/v1/machines/{name}/populate": {
              "parameters": [{"$ref": "#/components/parameters/Name"}],
              "post": {
                "summary": "Loads all memory, and answers when it is loaded.",
                "parameters": [{"$ref": "#/components/parameters/Seconds"}],
                "responses": {"200": {"$ref": "#/components/responses/Sessions"},
                  "400": {"$ref": "#/components/responses/Error"}, "404": {"$ref": "#/components/responses/Error"},
                  "422": {"$ref": "#/components/responses/Error"}, "429": {"$ref": "#/components/responses/Error"}}
              }
            },
            "/v1/machines/{name}/pause": {
              "parameters": [{"$ref": "#/components/parameters/Name"}],
              "post": {
                "summary": "Changes no page of the machine, in sessions to come neither, until it is resumed.",
                "responses": {"200": {"$ref": "#/components/responses/Sessions"},
                  "404": {"$ref": "#/components/responses/Error"}}
              }
            },
            "/v1/machines/{name}/resume": {
              "parameters": [{"$ref": "#/components/parameters/Name"}],
              "post": {
                "summary": "Goes on after a pause.",
                "responses": {"200": {"$ref": "#/components/responses/Sessions"},
                  "404": {"$ref": "#/components/responses/Error"}}
              }
            },
            "/v1/machines/{name}/drain": {
              "parameters": [{"$ref": "#/components/parameters/Name"}],
              "post": {
                "summary": "Loads all memory of the machine's sessions, and lets go of them.",
                "parameters": [{"$ref": "#/components/parameters/Seconds"}],
                "responses": {"200": {"$ref": "#/components/responses/Sessions"},
                  "400": {"$ref": "#/components/responses/Error"}, "404": {"$ref": "#/components/responses/Error"},
                  "422": {"description": "Memory is lost that could not be loaded, or not in time; the sessions have ended.",
                    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}},
                  "429": {"$ref": "#/components/responses/Error"}}
              }
            }
          },
          "components": {
            "parameters": {
              "Name": {"name": "name", "in": "path", "required": true, "schema": {"$ref": "#/components/schemas/Name"}},
              "Seconds": {"name": "seconds", "in": "query", "description": "How long to load; without a limit if absent.",
                "schema": {"type": "integer", "minimum": 0, "maximum": 86400}}
            },
            "responses": {
              "Machine": {"description": "The machine.", "content": {
                "application/json": {"schema": {"$ref": "#/components/schemas/Machine"}}}},
              "Sessions": {"description": "How many sessions it was done to.", "content": {"application/json": {"schema": {
                "type": "object", "required": ["sessions"], "properties": {"sessions": {"type": "integer"}}}}}},
              "Error": {"description": "Why not.", "content": {
                "application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}}
            },
            "schemas": {
              "Error": {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}},
              "Name": {"type": "string", "pattern": "^(?!\\.\\.?$)[A-Za-z0-9._-]{1,128}$"},
              "Specification": {
                "type": "object", "required": ["name", "socket", "memory"], "additionalProperties": false,
                "properties": {
                  "name": {"$ref": "#/components/schemas/Name"},
                  "socket": {"type": "string", "description": "Where the monitor connects."},
                  "format": {"enum": ["firecracker", "handoff"], "default": "firecracker"},
                  "memory": {"type": "string", 
                    "description": "A file, a block device, or an nbd, nbds, nbd+unix or nbds+unix URI."},
                  "tlsCertificates": {"type": "string",
                    "description": "For nbds: a folder with ca-cert.pem, and a client's certificate and key if wanted."},
                  "tlsPskFile": {"type": "string", "description": "For nbds: a file with pre-shared keys."},
                  "tlsUsername": {"type": "string", "description": "The name of the key in that file."},
                  "cacheRevision": {"type": "string",
                    "description": "Which version of the memory it is: the server's cache keeps it under this name."},
                  "prefetch": {"type": "string", "description": "A recorded working set to load first."},
                  "record": {"type": "string", "description": "Where to write the pages that were touched."},
                  "onFailure": {"enum": ["poison", "kill"], "default": "poison"},
                  "retries": {"type": "integer", "minimum": 0, "maximum": 1000,
                    "description": "How often a page is tried again: 3 for files and 14 for NBD servers by default."},
                  "checksums": {"type": "string", "description": "A file with the checksums of the pages."},
                  "populate": {"type": "boolean", "default": false},
                  "allowUsers": {"type": "array",
                    "description": "Who may connect; without it and allowGroups, the server's user and root.",
                    "items": {"type": "integer", "minimum": 0, "maximum": 4294967295}},
                  "allowGroups": {"type": "array",
                    "description": "Effective groups that may connect; without it, all.",
                    "items": {"type": "integer", "minimum": 0, "maximum": 4294967295}},
                  "socketMode": {"type": "string", "pattern": "^[0-7]{1,4}$"}
                }
              },
              "Totals": {
                "type": "object", "additionalProperties": {"type": "integer", "minimum": 0}
              },
              "Session": {
                "type": "object",
                "required": ["id", "process", "bytes", "regions", "outstandingFaults", "queuedFaults", "totals",
                  "medianNanoseconds", "p99Nanoseconds"],
                "properties": {
                  "id": {"type": "integer"}, "process": {"type": "integer"}, "bytes": {"type": "integer"},
                  "regions": {"type": "integer"}, "outstandingFaults": {"type": "integer"},
                  "queuedFaults": {"type": "integer"}, "totals": {"$ref": "#/components/schemas/Totals"},
                  "loading": {
                    "type": "object", "required": ["kind", "bytesLeft"],
                    "description": "What loads all memory now; absent if nothing does.",
                    "properties": {"kind": {"enum": ["populate", "drain"]}, "bytesLeft": {"type": "integer"}}
                  },
                  "medianNanoseconds": {"type": "integer"}, "p99Nanoseconds": {"type": "integer"}
                }
              },
              "Machine": {
                "type": "object", "required": ["name", "state", "specification", "sessions", "totals"],
                "properties": {
                  "name": {"$ref": "#/components/schemas/Name"},
                  "state": {"enum": ["waiting", "serving", "paused"]},
                  "specification": {"$ref": "#/components/schemas/Specification"},
                  "sessions": {"type": "array", "items": {"$ref": "#/components/schemas/Session"}},
                  "totals": {"$ref": "#/components/schemas/Totals"}
                }
              },
              "MachineList": {
                "type": "object", "required": ["machines"],
                "properties": {"machines": {"type": "array", "items": {"$ref": "#/components/schemas/Machine"}}}
              }
            }
          }
        }

        """#
}
