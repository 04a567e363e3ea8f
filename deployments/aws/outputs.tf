output "load_balancer" {
  description = "Point your name at it: a CNAME, or an alias record."
  value       = aws_lb.service.dns_name
}

output "migrate" {
  description = "The command that brings the schema up to date and waits until it is."
  value       = local.migrate
}

output "database_endpoint" {
  description = "The database's writer."
  value       = aws_rds_cluster.database.endpoint
}
