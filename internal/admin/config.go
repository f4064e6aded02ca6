package admin

// Config is the [admin] table.
type Config struct {
	// Listen is where the admin interface answers, as HOST:PORT.
	Listen string `toml:"listen" default:"127.0.0.1:9600"`
	// Insecure allows Listen beyond loopback although there is no TLS yet:
	// whoever reaches the port can read everything, and can change things with
	// the admin token, which then travels in the clear.
	Insecure bool `toml:"insecure" default:"false"`
}
