output "load_balancer" {
  description = "The load balancer's DNS name. Point your own name at it with a CNAME or an alias record."
  value       = aws_lb.service.dns_name
}

output "migrate" {
  description = "The command that migrates the schema and waits until that is done."
  value       = local.migrate
}

output "database_endpoint" {
  description = "The database's writer endpoint."
  value       = aws_rds_cluster.database.endpoint
}
