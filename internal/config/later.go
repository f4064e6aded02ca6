package config

// notYet lists the keys and values that are planned, so that whoever copies one
// from a design or a newer file learns that it is early, not wrong. A message
// ends with what stands here.
func notYet() map[string]string {
	const (
		trust  = "; keep to a network that you trust"
		oneEnd = ": an upstream has one endpoint; remove it"
		kinds  = `; write "mqtt" or "file"`
	)
	return map[string]string{
		"plugin":    "; remove it",
		"discovery": ": name each address in the file",

		"admin.tls":  trust,
		"admin.auth": trust,

		"route.handlers": "; remove it",

		"upstream.kind=mcp":           kinds,
		"upstream.kind=nats":          kinds,
		"upstream.kind=http":          kinds,
		"upstream.kind=plugin":        kinds,
		"upstream.mcp":                kinds,
		"upstream.nats":               kinds,
		"upstream.http":               kinds,
		"upstream.plugin":             kinds,
		"upstream.tls":                trust,
		"upstream.mqtt.tls":           trust,
		"upstream.mqtt.qos=0":         "; write qos = 1",
		"upstream.mqtt.qos=2":         "; write qos = 1",
		"upstream.balance":            oneEnd,
		"upstream.failover_after":     oneEnd,
		"upstream.discovery":          ": name each address in endpoints",
		"upstream.endpoints.weight":   oneEnd,
		"upstream.endpoints.priority": oneEnd,
	}
}
