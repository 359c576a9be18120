import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import org.elasticsearch.common.logging.LogConfigurator;
import org.elasticsearch.common.settings.Settings;
import org.elasticsearch.env.Environment;
import org.elasticsearch.plugins.PluginsLoader;

/** One Elasticsearch node on loopback: Node HOME PORT MODULES. Runs until it is told to stop (SIGTERM). */
public class Node {
  public static void main(String[] args) throws Exception {
    Path home = Path.of(args[0]).toAbsolutePath();
    Path modules = Path.of(args[2]).toAbsolutePath();
    for (String name : List.of("config", "plugins", "logs", "data")) {
      Files.createDirectories(home.resolve(name));
    }
    LogConfigurator.configureESLogging();
    Settings settings = Settings.builder()
        .put("path.home", home.toString())
        .put("path.data", home.resolve("data").toString())
        .put("path.logs", home.resolve("logs").toString())
        .put("node.name", "node")
        .put("cluster.name", "tocsin-development")
        .put("discovery.type", "single-node")
        .put("http.host", "127.0.0.1")
        .put("http.port", args[1])
        .put("transport.host", "127.0.0.1")
        .put("transport.port", "0")
        // Each test run adds small data streams of its own.
        .put("cluster.max_shards_per_node", 20_000)
        // A disk that is 90 % full is common on a development machine; the node's data is small.
        .put("cluster.routing.allocation.disk.threshold_enabled", false)
        .build();
    PluginsLoader plugins = PluginsLoader.createPluginsLoader(
        PluginsLoader.loadModulesBundles(modules), PluginsLoader.loadPluginsBundles(home.resolve("plugins")), Map.of());
    org.elasticsearch.node.Node node =
        new org.elasticsearch.node.Node(new Environment(settings, home.resolve("config")), plugins);
    Runtime.getRuntime().addShutdownHook(new Thread(() -> close(node)));
    node.start();
    System.out.println("started");
    Thread.currentThread().join();
  }

  private static void close(org.elasticsearch.node.Node node) {
    try {
      node.prepareForClose();
      node.close();
    } catch (Exception e) {
      e.printStackTrace();
    }
  }
}
